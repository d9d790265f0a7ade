"""The job master: one detached, named Ray actor for each job, owner of the job's slots.

A thin shell: the job runs on a thread of its own (`job_loop`), the methods here put mail or wait
for a publication.  They are coroutines, so that any number of clients may wait without
holding up a report; none of them blocks, since one that did would stall all.  The order of a
slot's reports does not rest on Ray: a slot has one call under way at a time.

The slots are created here and die with this process.  When the job has ended they are gone, and
the master stays for a while without CPU, so that clients learn how it ended.
"""

import asyncio
import logging
import random
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import ray

from raystream.api.runner import ClientRequest
from raystream.clock import SystemClock
from raystream.cluster.connection import NAMESPACE
from raystream.cluster.job_loop import JobLoop
from raystream.cluster.placement import RaySlotPool
from raystream.cluster.process import configure_logging
from raystream.cluster.publication import Publication, Seen, Update
from raystream.cluster.versions import check_client
from raystream.cluster.worker import WorkerInfo
from raystream.errors import RaystreamError
from raystream.ids import JobId, SlotId
from raystream.runtime.admission import admit
from raystream.runtime.coordinator_services import CoordinatorServices, JobSubmission
from raystream.runtime.coordinator_storage import open_storage
from raystream.runtime.coordinator_view import JobView
from raystream.runtime.messages import Report
from raystream.runtime.program import unpack
from raystream.runtime.thread_pools import CoordinatorThreads

logger = logging.getLogger(__name__)

LINGER_S = 600.0
"""Time that a job master answers after the end of its job."""
UPDATE_WAIT_S_MAX = 60.0
"""Longest time that a question for news is held back; a client asks again."""

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


class JobMasterActor:
    """Runs one job.

    Args:
        client: versions at the client, by name; of plain types, so that it is readable by any version.
        job_id: the job.
        program: the packed program.
    """

    def __init__(self, client: dict[str, str], job_id: str, program: bytes) -> None:
        configure_logging()
        self._job_id = JobId(job_id)
        self._handle: Any = ray.get_runtime_context().current_actor
        self._loop = JobLoop(SystemClock(), ended=self._linger_once_ended)
        self._refusal: RaystreamError | None = None
        try:
            check_client(client)
            self._begin(program)
        except RaystreamError as error:
            self._refusal = error  # An actor whose constructor fails takes its reason with it.
            self._linger_once_ended()

    async def report(self, slot: SlotId, incarnation: int, batch: int, reports: Sequence[Report]) -> None:
        """Take reports of a slot."""
        self._loop.reported(slot, incarnation, batch, reports)

    async def request(self, request: ClientRequest) -> None:
        """Take a request; its outcome will be in the view."""
        self._loop.requested(request)

    async def view(self) -> JobView:
        """Return how the job stands now.

        Raises:
            RaystreamError: the job cannot run as it was submitted.
        """
        return self._publication.view

    async def update(self, seen: Seen, timeout_s: float) -> Update:
        """Return what the client has not seen, as soon as there is something or the time is over."""
        return await self._publication.update(seen, min(timeout_s, UPDATE_WAIT_S_MAX))

    async def workers(self) -> tuple[WorkerInfo, ...]:
        """Return where the slots run that have a process."""
        return self._loop.workers

    async def linger(self) -> None:
        """Answer clients for some more time, then end the process."""
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), LINGER_S)
        ray.actor.exit_actor()  # type: ignore[no-untyped-call]

    def __repr__(self) -> str:
        """Return what Ray puts before each line that the process logs."""
        return f"job {self._job_id[:8]}"

    @property
    def _publication(self) -> Publication:
        if self._refusal is not None:
            raise self._refusal
        return self._loop.publication

    def _begin(self, packed: bytes) -> None:
        program = unpack(packed)
        submission = JobSubmission(
            job_id=self._job_id,
            name=program.job_name,
            plan=program.plan,
            config=program.config,
            program=packed,
        )
        storage = open_storage(self._job_id, program.config)
        submission = admit(submission, storage, alive=is_alive)
        clock, mailbox = SystemClock(), self._loop.mailbox
        pool = RaySlotPool(
            job_id=self._job_id,
            master=self._handle,
            cpus=program.config.slot.cpus,
            heartbeat=program.config.heartbeat,
            clock=clock,
            mailbox=mailbox,
            changed=self._loop.touch,
        )
        threads = CoordinatorThreads(mailbox)
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
        )
        pool.attach(self._loop.prepare(services, pool))
        self._loop.start()
        logger.info("job accepted", extra={"job_id": self._job_id, "job": program.job_name})

    def _linger_once_ended(self) -> None:
        # As a call of this actor, since an actor can exit only from within one.
        self._handle.linger.remote()
