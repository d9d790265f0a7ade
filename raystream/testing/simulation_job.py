"""A job that can be simulated any number of times: packed once for each parallelism, run for each seed."""

import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from raystream.api.environment import StreamEnvironment
from raystream.api.runner import JobHandle, Submission
from raystream.api.stream import DataStream
from raystream.config.load import load_config
from raystream.errors import ConfigError
from raystream.runtime.program import Program, pack
from raystream.testing.drawn_faults import Faults
from raystream.testing.faults import Fault
from raystream.testing.simulation_marks import Mark
from raystream.testing.simulation_run import Delivery, PackedJob, RunResult, SimulatedRun, counted
from raystream.testing.simulation_shrink import shortest_failing
from raystream.testing.simulation_sink import SimulatedSink
from raystream.testing.simulation_world import SimulationError

Job = Callable[[StreamEnvironment], DataStream[Any] | None]
"""Builds a job; the stream that it returns is the output that is checked."""

_OPTIONS: dict[str, object] = {
    "execution_checkpointing_interval": "30ms",
    "execution_checkpointing_timeout": "1s",
    "execution_checkpointing_dir": "memory://simulated-checkpoints",
    "execution_checkpointing_savepoint_dir": "memory://simulated-savepoints",
    "execution_checkpointing_data_inline_threshold": "100",
    "execution_checkpointing_tolerable_failed_checkpoints": 1000,
    "restart_strategy_type": "fixed-delay",
    "restart_strategy_fixed_delay_attempts": 100,
    "restart_strategy_fixed_delay_delay": "10ms",
    "task_cancellation_timeout": "2s",
}

STEPS_MAX = 50_000
"""Rounds of all loops together in one run; a small job takes about a thousand."""

_numbers = itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedResult:
    """What came of one seed."""

    seed: int
    ok: bool
    problems: tuple[str, ...]
    """What went wrong."""
    faults: tuple[Fault, ...]
    """Those that happened, in order; others were planned and found nothing to happen to."""
    planned: tuple[Fault, ...]
    marks: dict[Mark, int]
    """How often the run has reached each rare moment."""
    trace_hash: str
    """Hash of everything that happened, and when; the same for the same seed."""
    trace: tuple[str, ...]
    """The last events, for people."""
    attempts: int
    checkpoints: int
    """Id of the newest complete checkpoint."""
    storage_calls: int
    """Calls of the store that could have failed."""
    virtual_ms: float
    steps: int


class Simulation:
    """A job, how it is configured, and what its output must be.

    Args:
        job: builds the job and returns the stream whose records are checked; None checks only that
            it runs to its end.  The job's sources are bounded.
        expected: the output, in any order; by default that of a run without faults.
        delivery: how the output may differ from it; by default as the mode of checkpoints promises.
        parallelism: of the job's first start.
        steps_max: rounds of all loops together after which a run counts as endless.
        options: configuration keys, as for `StreamEnvironment`.

    Attributes:
        name: of the job.

    Raises:
        ConfigError: the job cannot start as configured.
        GraphError: the program does not describe a job that can run.
    """

    def __init__(
        self,
        job: Job,
        *,
        expected: Iterable[Any] | None = None,
        delivery: Delivery | None = None,
        parallelism: int = 2,
        steps_max: int = STEPS_MAX,
        **options: object,
    ) -> None:
        self.name: str = getattr(job, "__name__", "simulated job")
        self._store_name = f"{os.getpid()}-{next(_numbers)}"
        self._job = job
        self._options = {**_OPTIONS, **options}
        self._parallelism = parallelism
        self._steps_max = steps_max
        self._packed: dict[int, PackedJob] = {}
        self._expected = None if expected is None else tuple(expected)
        packed = self._pack(parallelism)
        self._slot_count = packed.plan.slot_count
        self._delivery = delivery or Delivery(packed.config.checkpointing.mode)

    @property
    def reference(self) -> tuple[Any, ...]:
        """The output that is expected.

        Raises:
            SimulationError: the job does not run even without faults.
        """
        if self._expected is None:
            result = self._run(0, (), parallelism=1, judged=False)
            if result.problems:
                raise SimulationError(
                    "\n".join(["job does not run even without faults", *result.trace, *result.problems])
                )
            self._expected = result.records
        return self._expected

    def drawn(self, seed: int, faults: Faults) -> tuple[Fault, ...]:
        """Return the faults of a seed."""
        return faults.draw(seed, slot_count=self._slot_count)

    def run(self, seed: int, faults: Sequence[Fault]) -> SeedResult:
        """Run the job once."""
        result = self._run(seed, faults, parallelism=self._parallelism)
        return SeedResult(
            seed=seed,
            ok=not result.problems,
            problems=result.problems,
            faults=result.faults,
            planned=tuple(faults),
            marks=result.marks,
            trace_hash=result.trace_hash,
            trace=result.trace,
            attempts=result.attempts,
            checkpoints=result.checkpoints,
            storage_calls=result.storage_calls,
            virtual_ms=result.virtual_ms,
            steps=result.steps,
        )

    def shrink(self, failed: SeedResult) -> tuple[Fault, ...]:
        """Return a part of a failed run's faults with which it still fails, and none can be left out."""

        def fails(faults: tuple[Fault, ...]) -> bool:
            return not self.run(failed.seed, faults).ok

        return shortest_failing(failed.faults if fails(failed.faults) else failed.planned, fails)

    def _run(self, seed: int, faults: Sequence[Fault], *, parallelism: int, judged: bool = True) -> RunResult:
        run = SimulatedRun(self._pack, parallelism, seed=seed, faults=faults, store_name=self._store_name)
        return run.execute(counted(self.reference) if judged else None, self._delivery)

    def _pack(self, parallelism: int) -> PackedJob:
        """Return the job at a parallelism."""
        if parallelism not in self._packed:
            self._packed[parallelism] = self._make(parallelism)
        return self._packed[parallelism]

    def _make(self, parallelism: int) -> PackedJob:
        capture = _Capture()
        config = load_config(keywords={**self._options, "parallelism_default": parallelism})
        env = StreamEnvironment(config, runner=capture)
        stream = self._job(env)
        if stream is not None:
            stream.sink_to(SimulatedSink(self._store_name), name="simulated sink", uid="simulated-sink")
        env.submit(self.name)
        submission = capture.submission
        assert submission is not None, "an environment submits to its runner"
        if not all(vertex.source.bounded for vertex in submission.plan.vertices if vertex.source is not None):
            raise ConfigError("simulated job never ends", hint="give its sources an end")
        program = Program(job_name=self.name, plan=submission.plan, config=submission.config)
        return PackedJob(
            name=self.name,
            plan=submission.plan,
            config=submission.config,
            program=pack(program),
            steps_max=self._steps_max,
        )


class _Capture:
    """A runner that only keeps what it is given."""

    submission: Submission | None = None

    def submit(self, submission: Submission) -> JobHandle:
        self.submission = submission
        return submission  # type: ignore[return-value]

    def attach(self, job_id: str, *, address: str | None = None) -> JobHandle:
        raise ConfigError("simulated jobs have no clients", job_id=job_id)
