"""The job master: one detached, named Ray actor for each job, owner of the job's slots.

A thin shell: the job runs on a thread of its own (`job_loop`), the methods here put mail or wait
for a publication.  They are coroutines, so that any number of clients may wait without
holding up a report; none of them blocks, since one that did would stall all.  The order of a
slot's reports does not rest on Ray: a slot has one call under way at a time.

The slots are created here and die with this process.  When the job has ended they are gone, and
the master stays for a while without CPU, so that clients learn how it ended.

    created --> accept: program stored --> runs the job --> ended, lingers --> exits
                    ^                          |                  |
                    | no program               | process dies     | process dies
                    +------- another life begins: Ray makes a new process --------> archive: lingers

Ray begins another life of a master whose process was lost when the job's checkpoints are durable.
It finds the program where the first one has stored it, and the rest in the job log.
"""

import asyncio
import logging
import random
import secrets
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import ray

from raystream.api.runner import ClientRequest
from raystream.clock import SystemClock
from raystream.cluster import _ray_compat as compat
from raystream.cluster.connection import NAMESPACE
from raystream.cluster.ended_job import EndedJob, find_ended
from raystream.cluster.job_loop import JobLoop
from raystream.cluster.metrics_export import JobExporter
from raystream.cluster.node_logs import link_logs
from raystream.cluster.placement import RaySlotPool
from raystream.cluster.process import configure_logging
from raystream.cluster.publication import Seen, Update
from raystream.cluster.reservations import Reservations, remove_groups
from raystream.cluster.resources import needs_of
from raystream.cluster.versions import check_client
from raystream.cluster.worker import WorkerInfo
from raystream.errors import JobNotFoundError, RaystreamError, SlotLostError, StorageError
from raystream.ids import JobId, SlotId
from raystream.runtime.admission import admit
from raystream.runtime.coordinator_recovery import RECOVERY_RETRY_MS, RECOVERY_TRIES_MAX
from raystream.runtime.coordinator_services import CoordinatorServices, JobSubmission
from raystream.runtime.coordinator_storage import Directory, JobStorage, open_directory, open_storage
from raystream.runtime.coordinator_view import JobView
from raystream.runtime.job_metrics import JobMetrics
from raystream.runtime.logged_job import has_begun
from raystream.runtime.mailbox import ThreadBackground
from raystream.runtime.messages import Report
from raystream.runtime.program import unpack
from raystream.runtime.thread_pools import CoordinatorThreads

logger = logging.getLogger(__name__)

LINGER_S = 600.0
"""Time that a job master answers after the end of its job."""
UPDATE_WAIT_S_MAX = 60.0
"""Longest time that a question for news is held back; a client asks again."""

ACCEPT_WAIT_S = 300.0
"""Time that a job master waits for its job."""

_INCARNATIONS_MAX = 1 << 32
_NAME_PREFIX = "job-"


def master_name(job_id: JobId) -> str:
    """Return the name of a job's master among Ray's actors."""
    return f"{_NAME_PREFIX}{job_id}"


def job_of_master(name: str) -> JobId | None:
    """Return the job whose master has this name, or None when it is another actor."""
    return JobId(name.removeprefix(_NAME_PREFIX)) if name.startswith(_NAME_PREFIX) else None


def is_alive(job_id: JobId) -> bool:
    """Return whether the cluster has a master of this job, be it one that only answers questions."""
    try:
        ray.get_actor(master_name(job_id), namespace=NAMESPACE)
    except ValueError:
        return False
    return True


def kill_master(job_id: JobId) -> None:
    """End a job whose submission broke off; by name, since there may be a master without a handle."""
    with suppress(ValueError):
        ray.kill(ray.get_actor(master_name(job_id), namespace=NAMESPACE))
        remove_groups(job_id)


class JobMasterActor:
    """Runs one job.

    It gets the job's program by a call, `accept`, and keeps it in the checkpoint directory: what it needs to
    begin again, in another process and perhaps on another node, are its small arguments alone.

    Args:
        client: versions at the client, by name; of plain types, so that it is readable by any version.
        job_id: the job.
        directory: the durable directory of its checkpoints; None when it ends with this process.
    """

    def __init__(self, client: dict[str, str], job_id: str, directory: str | None) -> None:
        configure_logging(job_id)
        self._clock = SystemClock()
        self._job_id = JobId(job_id)
        link_logs(self._job_id, "master")
        self._handle: Any = ray.get_runtime_context().current_actor
        self._first_incarnation = secrets.randbits(30) << 32  # Other ones than in any life before.
        self._accepting = asyncio.Lock()
        self._durable = directory is not None
        self._job: JobLoop | EndedJob | None = None
        self._refusal: RaystreamError | None = None
        again = compat.actor_was_restarted()
        try:
            check_client(client)
            if directory is not None and again:
                self._go_on(open_directory(self._job_id, directory))
        except RaystreamError as error:
            self._refuse(error)  # An actor whose constructor fails takes its reason with it.
        if again and not isinstance(self._job, JobLoop):
            remove_groups(self._job_id)
        if self._job is None and self._refusal is None:
            self._handle.expire.remote()

    async def accept(self, program: bytes) -> None:
        """Begin with a packed program; repeating it is harmless.

        Raises:
            RaystreamError: the job cannot run as it was submitted.
        """
        async with self._accepting:
            if self._job is None and self._refusal is None:
                try:
                    await asyncio.to_thread(self._begin, program)
                except RaystreamError as error:
                    self._refuse(error)
        if self._refusal is not None:
            raise self._refusal

    async def check(self, client: dict[str, str]) -> None:
        """Compare a client's versions with those of this process, before messages of any of our classes.

        Raises:
            ConfigError: they differ.
        """
        check_client(client)

    async def report(self, slot: SlotId, incarnation: int, batch: int, reports: Sequence[Report]) -> None:
        """Take reports of a slot.

        Raises:
            SlotLostError: it belongs to an earlier life of the job master, and is to end.
        """
        if not 0 < incarnation - self._first_incarnation < _INCARNATIONS_MAX:
            raise SlotLostError("slot belongs to a job master that is gone", slot=slot)
        self._running.reported(slot, incarnation, batch, reports)

    async def request(self, request: ClientRequest) -> str:
        """Take a request, whose outcome will be in the view; return which life of the master has taken it."""
        running = await self._accepted()
        running.requested(request)
        return running.publication.life

    async def view(self) -> JobView:
        """Return how the job stands now.

        Raises:
            RaystreamError: the job cannot run as it was submitted.
        """
        return await (await self._accepted()).publication.known_view()

    async def metrics(self) -> JobMetrics:
        """Return what the slots have counted and measured."""
        publication = (await self._accepted()).publication
        view = await publication.known_view()
        return JobMetrics.of(view, publication.progress, self._clock.wall_ms())

    async def update(self, seen: Seen, timeout_s: float) -> Update:
        """Return what the client has not seen, as soon as there is something or the time is over."""
        publication = (await self._accepted()).publication
        return await publication.update(seen, min(timeout_s, UPDATE_WAIT_S_MAX))

    async def workers(self) -> tuple[WorkerInfo, ...]:
        """Return where the slots run that have a process."""
        return (await self._accepted()).workers

    async def linger(self) -> None:
        """Answer clients for some more time, then end the process."""
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), LINGER_S)
        ray.actor.exit_actor()  # type: ignore[no-untyped-call]

    async def expire(self) -> None:
        """End the process if it gets no job in time: its client has died."""
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), ACCEPT_WAIT_S)
        if self._job is None:
            ray.actor.exit_actor()  # type: ignore[no-untyped-call]

    def __repr__(self) -> str:
        """Return what Ray puts before each line that the process logs."""
        return f"job {self._job_id[:8]}"

    async def _accepted(self) -> JobLoop | EndedJob:
        """Return the job, as soon as it is decided whether it is taken: who had it taken may be dead.

        Raises:
            RaystreamError: there is none.
        """
        async with self._accepting:
            return self._running

    @property
    def _running(self) -> JobLoop | EndedJob:
        if self._refusal is not None:
            raise self._refusal
        if self._job is None:
            raise JobNotFoundError(
                "job master has no job: it has not got one, or it has ended",
                hint="one that begins again on another node finds its job only where every node sees the same"
                " execution.checkpointing.dir",
                job_id=self._job_id,
            )
        return self._job

    def _go_on(self, directory: Directory) -> None:
        """Go on with the job of the directory, if it has begun: this is not the master's first life.

        Raises:
            RaystreamError: nobody can go on with it here.
        """
        for left in reversed(range(RECOVERY_TRIES_MAX)):
            try:
                ended = find_ended(directory)
                program = None if ended is not None else directory.load_program()
                if ended is not None:
                    self._job = ended
                    self._linger_once_ended()
                elif program is not None:
                    self._begin(program, directory)
                return
            except StorageError as error:
                if not left:
                    raise
                logger.warning("checkpoint directory does not answer", extra={"left": left}, exc_info=error)
                threading.Event().wait(RECOVERY_RETRY_MS / 1000.0)

    def _begin(self, packed: bytes, known: Directory | None = None) -> None:
        """Begin the job, or go on with the one whose program is `known` to a directory."""
        program = unpack(packed)
        submission = JobSubmission(
            job_id=self._job_id,
            name=program.job_name,
            plan=program.plan,
            config=program.config,
            program=packed,
        )
        storage = open_storage(self._job_id, program.config)
        if known is None or not has_begun(storage.log.read()):
            submission = admit(submission, storage, alive=is_alive)
        if known is None and storage.directory is not None:
            storage.directory.store_program(packed)
        self._run(submission, storage, inherits=known is not None)

    def _run(self, submission: JobSubmission, storage: JobStorage, *, inherits: bool) -> None:
        clock, loop = self._clock, JobLoop(SystemClock(), ended=self._linger_once_ended)
        slot = submission.config.slot
        pool = RaySlotPool(
            job_id=self._job_id,
            master=self._handle,
            needs=needs_of(submission.plan, slot.cpus),
            reservations=Reservations(
                self._job_id,
                slot.placement,
                ThreadBackground(loop.mailbox, name="reservations", threads_max=1),
                durable=self._durable,
                inherits=inherits,
            ),
            spares=slot.spares,
            heartbeat=submission.config.heartbeat,
            clock=clock,
            mailbox=loop.mailbox,
            changed=loop.touch,
            first_incarnation=self._first_incarnation,
            inherits=inherits,
        )
        threads = CoordinatorThreads(loop.mailbox)
        services = CoordinatorServices(
            submission=submission,
            storage=storage,
            slots=pool,
            clock=clock,
            background=threads.metadata,
            log=threads.log,
            discovery=threads.discovery,
            deletion=threads.deletion,
            rng=random.SystemRandom(),
            inherits=inherits,
        )
        pool.attach(loop.prepare(services, pool))
        loop.start()
        self._job = loop
        interval_ms = submission.config.checkpointing.interval_ms or 0
        JobExporter(loop.publication, interval_ms=interval_ms, clock=clock).start()
        logger.info("job accepted", extra={"job_id": self._job_id, "job": submission.name})

    def _refuse(self, error: RaystreamError) -> None:
        self._refusal = error
        self._linger_once_ended()

    def _linger_once_ended(self) -> None:
        # As a call of this actor, since an actor can exit only from within one.
        self._handle.linger.remote()
