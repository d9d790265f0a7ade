"""One simulated run of a job: the world is set up, time passes, and what came of it is judged.

    coordinator (real)  <--messages-->  slots (real)  <--frames-->  slots (real)
           |                               |
           +------- store in memory -------+

A run has several jobs when a client stops or cancels one and goes on from its snapshot; the
store is the same throughout.  What must hold in every run is checked here: the job finishes,
the output is there as often as was promised, nothing was visible
before its checkpoint was complete, nobody broke the protocol, nothing is left over.
"""

import logging
import random
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from typing import Any

from raystream.api.runner import CancelRequest, RescaleRequest, SavepointRequest, StopRequest
from raystream.config.options import JobConfig
from raystream.graph.physical import PhysicalPlan
from raystream.handles import SavepointFormat
from raystream.ids import JobId, JobStatus
from raystream.runtime.coordinator_services import JobSubmission
from raystream.runtime.coordinator_view import JobView
from raystream.testing.faults import (
    CancelAndResume,
    CrashAtCall,
    Fault,
    MasterCrash,
    MasterKill,
    MasterPresumedDead,
    Rescale,
    Savepoint,
    SlotPresumedDead,
    StopAndResume,
    StorageFailure,
    TimedFault,
)
from raystream.testing.simulation_coordinator import JobMasters
from raystream.testing.simulation_faults import FaultInjector, WorldFault
from raystream.testing.simulation_marks import Mark
from raystream.testing.simulation_sink import close_store, open_store, pending_parts, visible_records
from raystream.testing.simulation_slots import SimulatedSlotPool
from raystream.testing.simulation_sockets import Network
from raystream.testing.simulation_storage import SimulatedFileSystem
from raystream.testing.simulation_work import Running
from raystream.testing.simulation_world import SimulationError, World

_Outlived = SlotPresumedDead | MasterCrash | MasterKill | MasterPresumedDead | CrashAtCall
"""Faults after which a process may go on beside the one that has replaced it."""

_FORMATS = tuple(SavepointFormat)
_SHOWN_MAX = 5
"""Records of a wrong output that are shown."""


class Delivery(Enum):
    """How the output of a run may differ from what is expected."""

    EXACTLY_ONCE = "exactly-once"
    """Not at all."""
    REPEATED = "repeated"
    """Records may be there more than once; state has had each once, so that no others are there."""
    AT_LEAST_ONCE = "at-least-once"
    """Nothing is missing."""

    def __repr__(self) -> str:
        return str(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedJob:
    """A job at one parallelism, that can be run any number of times."""

    name: str
    plan: PhysicalPlan
    config: JobConfig
    program: bytes
    steps_max: int
    """Bound on the steps of one run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """What came of one run."""

    problems: tuple[str, ...]
    """What went wrong; empty when nothing did."""
    records: tuple[Any, ...]
    """The visible output, in no order that means anything."""
    faults: tuple[Fault, ...]
    """Those that happened, in order."""
    marks: dict[Mark, int]
    trace_hash: str
    trace: tuple[str, ...]
    """The last events."""
    attempts: int
    checkpoints: int
    """Id of the newest complete one."""
    storage_calls: int
    virtual_ms: float
    steps: int


class SimulatedRun:
    """One run; used once.

    Args:
        pack: gives the job at a parallelism.
        parallelism: of the first start.
        seed: decides everything that is random, but for the faults.
        faults: what goes wrong.
        store_name: where the job's sink looks for its store.
    """

    def __init__(
        self,
        pack: Callable[[int], PackedJob],
        parallelism: int,
        *,
        seed: int,
        faults: Sequence[Fault],
        store_name: str,
    ) -> None:
        self._pack = pack
        self._parallelism = parallelism
        self._seed = seed
        self._faults = faults
        self._store_name = store_name
        self._world = World(random.Random(f"world/{seed}"))
        self._running = Running()
        self._injector = FaultInjector(self._world, faults, self._running)
        self._fs = SimulatedFileSystem(self._injector)
        self._injector.files = self._fs.files
        self._problems = self._injector.problems
        self._attempts = self._checkpoints = 0
        self._starts = 0
        self._masters: JobMasters | None = None
        self._resume: StopAndResume | CancelAndResume | None = None

    def execute(self, expected: Counter[str] | None, delivery: Delivery) -> RunResult:
        """Run to the end and judge.

        Args:
            expected: number of each record's `repr` in the output; None when it is not judged.
            delivery: how the output may differ.
        """
        open_store(self._store_name, self._fs)
        for fault in self._faults:
            if isinstance(fault, TimedFault):
                self._world.after(fault.at_ms, partial(self._at_its_time, fault))
        try:
            with _logs_in(self._world):
                self._run_jobs()
        except SimulationError as error:
            self._problems.append(str(error))
        except Exception as error:
            self._problems.append("uncaught " + "".join(traceback.format_exception(error)))
        finally:
            close_store(self._store_name)
        records = tuple(visible_records(self._fs.files))
        if expected is not None:
            self._problems += _differences(expected, counted(records), delivery)
        return RunResult(
            problems=tuple(self._problems),
            records=records,
            faults=tuple(self._injector.happened),
            marks=dict(self._injector.marks.reached),
            trace_hash=self._world.trace.digest(),
            trace=self._world.trace.last(),
            attempts=self._attempts,
            checkpoints=self._checkpoints,
            storage_calls=self._injector.storage_calls,
            virtual_ms=self._world.now_ms,
            steps=self._world.steps,
        )

    # ---- one job after the other ---------------------------------------------

    def _run_jobs(self) -> None:
        parallelism, path = self._parallelism, None
        while True:
            self._resume = None
            view = self._run_job(parallelism, path)
            self._attempts += view.attempt
            self._checkpoints = view.last_checkpoint_id or 0
            resume = self._resume
            stopped_at = _stopped_at(view)
            if isinstance(resume, StopAndResume) and view.status is JobStatus.FINISHED and stopped_at:
                parallelism, path = resume.parallelism, stopped_at
            elif isinstance(resume, CancelAndResume) and view.status is JobStatus.CANCELED:
                parallelism, path = resume.parallelism, _newest_retained(view) or path
            else:
                self._judge(view)
                return

    def _run_job(self, parallelism: int, path: str | None) -> JobView:
        """Run a job to its end and return how it ended."""
        packed = self._pack(parallelism)
        self._starts += 1
        config = replace(packed.config, recovery=replace(packed.config.recovery, path=path))
        network = Network(self._world, self._injector)
        submission = JobSubmission(
            job_id=JobId(f"{self._starts:08x}{self._seed & (1 << 96) - 1:024x}"),
            name=packed.name,
            plan=packed.plan,
            config=config,
            program=packed.program,
        )
        masters = self._masters = JobMasters(
            submission,
            self._world,
            partial(self._make_pool, network),
            running=self._running,
            open_fs=self._open_fs,
        )
        self._injector.attach(masters, parallelism)
        masters.start()
        self._world.run(lambda: masters.finished, steps_max=packed.steps_max)
        masters.close()
        self._injector.marks.job_ends()
        return masters.view()

    def _make_pool(self, network: Network, master: int) -> SimulatedSlotPool:
        return SimulatedSlotPool(
            self._world,
            network,
            self._running,
            watcher=self._injector,
            open_fs=self._open_fs,
            suffix=f" of {master}" if master > 1 else "",
        )

    def _open_fs(self, _url: str) -> SimulatedFileSystem:
        return self._fs

    def _at_its_time(self, fault: TimedFault) -> None:
        """The time of a fault has come; one that finds nothing to do does not happen."""
        masters = self._masters
        assert masters is not None, "time passes only while a job runs"
        if isinstance(fault, WorldFault):
            self._injector.world_fault(fault)
            return
        if not isinstance(fault, Savepoint | Rescale):
            if self._resume is not None or masters.finished:
                return
            self._resume = fault
        self._injector.happens(fault)
        number = len(self._injector.happened)
        request_id, wanted = f"request-{number}", _FORMATS[number % len(_FORMATS)]
        match fault:
            case Savepoint():
                masters.request(SavepointRequest(request_id, None, wanted))
            case Rescale():
                masters.request(RescaleRequest(request_id, fault.parallelism))
            case StopAndResume():
                self._injector.marks.stop_requested()
                masters.request(StopRequest(request_id, None, wanted, fault.drain))
            case CancelAndResume():
                masters.request(CancelRequest(request_id))

    # ---- the verdict -----------------------------------------------------------

    def _judge(self, view: JobView) -> None:
        if view.status is not JobStatus.FINISHED:
            self._problems.append(f"job is {view.status.value}: {view.error} {view.gave_up}".rstrip())
            return
        happened = self._injector.happened
        if any(isinstance(fault, _Outlived) for fault in happened):
            return  # What a process writes when its successor has cleaned up, nobody knows of.
        left = pending_parts(self._fs.files, view.job_id)
        if not any(isinstance(fault, StorageFailure) for fault in happened):
            kept = (f"/{view.job_id}/chk-", f"/{view.job_id}/shared/")
            left += [url for url in sorted(self._fs.files) if any(part in url for part in kept)]
        self._problems += [f"left over: {url}" for url in left]


def _stopped_at(view: JobView) -> str:
    """Return the savepoint with which a job was stopped; empty when it was not."""
    stops = [
        record for record in view.checkpoints if record.purpose == "stop" and record.status == "completed"
    ]
    return stops[-1].path if stops else ""


def _newest_retained(view: JobView) -> str:
    """Return the newest checkpoint that a cancelled job has left; empty when there is none."""
    left = [record for record in view.checkpoints if record.checkpoint_id == view.last_checkpoint_id]
    return left[-1].path if left else ""


def _differences(expected: Counter[str], actual: Counter[str], delivery: Delivery) -> Iterator[str]:
    yield from _difference("missing from the output", expected - actual)
    if delivery is Delivery.EXACTLY_ONCE:
        yield from _difference("too much in the output", actual - expected)
    elif delivery is Delivery.REPEATED:
        others = Counter({record: count for record, count in actual.items() if record not in expected})
        yield from _difference("wrong in the output", others)


def _difference(what: str, records: Counter[str]) -> Iterator[str]:
    if records:
        shown = ", ".join(sorted(records.elements())[:_SHOWN_MAX])
        more = records.total() - _SHOWN_MAX
        yield f"{what}: {shown}" + (f" and {more} more" if more > 0 else "")


class _TraceHandler(logging.Handler):
    """Shows log records in the trace."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.INFO)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        cause = record.exc_info[1] if record.exc_info else None
        text = record.getMessage() + (f": {cause}" if cause else "")
        self._world.trace.note(self._world.now_ms, record.levelname.lower(), text.replace("\n", " "))


@contextmanager
def _logs_in(world: World) -> Iterator[None]:
    """Have raystream's log records in the trace, and nowhere else."""
    logger = logging.getLogger("raystream")
    before = logger.propagate, logger.level
    handler = _TraceHandler(world)
    logger.addHandler(handler)
    logger.propagate, level = False, logging.INFO
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = before[0]
        logger.setLevel(before[1])


def counted(records: Iterable[Any]) -> Counter[str]:
    """Return the number of each record's `repr`."""
    return Counter(map(repr, records))
