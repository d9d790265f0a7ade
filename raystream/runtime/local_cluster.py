"""The runner `local`: a job in this process, without Ray.

One thread drives the coordinator and all slots, one step after the other, and waits when none of
them has anything to do.  The same coordinator, slots and operators run on Ray; here their links
are in memory, and a breakpoint in user code stops the whole job.

    mailbox of the job -> timers of the coordinator -> a step of every slot -> wait
"""

import logging
import random
import threading
from collections.abc import Callable, Collection, Sequence
from functools import partial

from raystream.api.runner import ClientRequest, JobHandle, OutputListener, Submission
from raystream.clock import SystemClock
from raystream.errors import JobNotFoundError, ProtocolError, RaystreamError, SlotLostError
from raystream.ids import JobId, JobStatus, SlotId
from raystream.runtime import messages as msg
from raystream.runtime.admission import admit
from raystream.runtime.coordinator import JobCoordinator
from raystream.runtime.coordinator_services import CoordinatorServices, JobSubmission
from raystream.runtime.coordinator_storage import open_storage
from raystream.runtime.coordinator_view import JobView
from raystream.runtime.job_metrics import JobMetrics
from raystream.runtime.links import MemoryLinks, MemoryNetwork
from raystream.runtime.local_cluster_board import LocalBoard
from raystream.runtime.mailbox import Mailbox
from raystream.runtime.program import Program, pack
from raystream.runtime.slot import Slot
from raystream.runtime.thread_pools import CoordinatorThreads, SlotThreads

logger = logging.getLogger(__name__)

JOBS_REMEMBERED_MAX = 100
"""Jobs of this process that can still be attached to."""

PUBLISH_INTERVAL_MS = 200
"""Time between two views while a busy job has no other news than its counts."""


class LocalSlots:
    """The slots of one local job; a slot pool, all on the job's thread.

    Args:
        mailbox: of the job; answers and reports go there.
        wake: interrupts the wait of the job's thread; from any thread.
    """

    def __init__(self, clock: SystemClock, mailbox: Mailbox, wake: threading.Event) -> None:
        self._clock = clock
        self._mailbox = mailbox
        self._wake = wake
        self._network = MemoryNetwork()
        self._slots: dict[SlotId, tuple[Slot, SlotThreads]] = {}
        self.coordinator: JobCoordinator

    def acquire(self, slots: Sequence[SlotId]) -> None:
        for slot in slots:
            self._slots[slot] = made = self._make(slot)
            self._mailbox.post(partial(self._acquired, slot, made))

    def send(self, slot: SlotId, command: msg.Command) -> None:
        if slot in self._slots:
            self._slots[slot][0].deliver(command)

    def kill(self, slot: SlotId) -> None:
        """Drop a slot.  Its thread is everybody's, so that one that hangs is never killed."""
        if slot in self._slots:
            self._drop(slot)
            error = SlotLostError("slot was given up", slot=slot)
            self._mailbox.post(lambda: self.coordinator.slot_lost(slot, error))

    def dismiss(self, slots: Sequence[SlotId], *, again: Collection[SlotId] = ()) -> None:
        for slot in slots:
            if slot in self._slots:
                self._drop(slot)

    def release(self, released: Callable[[], None]) -> None:
        dropped = [self._drop(slot) for slot in list(self._slots)]

        def wait() -> None:
            for threads in dropped:
                threads.join()
            self._mailbox.post(released)

        threading.Thread(target=wait, name="release", daemon=True).start()

    def step(self) -> bool:
        """Let every slot do one round; True when there was anything to do."""
        worked = False
        for slot, _ in list(self._slots.values()):
            worked = slot.step() or worked
        return worked

    def next_deadline_ms(self) -> float | None:
        """Return when a slot has timed work."""
        deadlines = (slot.next_deadline_ms() for slot, _ in self._slots.values())
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def _acquired(self, slot: SlotId, made: tuple[Slot, SlotThreads]) -> None:
        if self._slots.get(slot) is made:  # Else it was dismissed meanwhile.
            self.coordinator.slot_acquired(slot)

    def _make(self, slot: SlotId) -> tuple[Slot, SlotThreads]:
        mailbox = Mailbox(self._wake.set)
        threads = SlotThreads(mailbox, slot)
        made = Slot(
            slot,
            clock=self._clock,
            mailbox=mailbox,
            uploads=threads.uploads,
            commits=threads.commits,
            links=MemoryLinks(self._network, self._wake.set),
            report=lambda report: self._mailbox.post(lambda: self.coordinator.slot_reported(report)),
        )
        return made, threads

    def _drop(self, slot: SlotId) -> SlotThreads:
        dropped, threads = self._slots.pop(slot)
        dropped.close()
        dropped.step()  # What was posted, and the end of the loop.
        threads.close()
        return threads


class LocalJob:
    """A job in this process; a job handle, usable from any thread.

    Args:
        submission: the job.

    Raises:
        ConfigError: the job can not be shipped, or its checkpoint directory is of a store that is
            not supported.
        StateRestoreError: there is no snapshot to start from where the configuration says, or it
            does not fit the program.
        StateCorruptError: that snapshot is damaged.
    """

    def __init__(self, submission: Submission) -> None:
        program = Program(job_name=submission.name, plan=submission.plan, config=submission.config)
        job = JobSubmission(
            job_id=submission.job_id,
            name=submission.name,
            plan=submission.plan,
            config=submission.config,
            program=pack(program),
        )
        storage = open_storage(submission.job_id, submission.config)
        job = admit(job, storage)
        self._job_id = submission.job_id
        self._clock = SystemClock()
        self._woken = threading.Event()
        self._mailbox = Mailbox(self._woken.set)
        self._slots = LocalSlots(self._clock, self._mailbox, self._woken)
        self._threads = CoordinatorThreads(self._mailbox)
        self._shows_news = False
        self._publish_ms = 0.0
        services = CoordinatorServices(
            submission=job,
            storage=storage,
            slots=self._slots,
            clock=self._clock,
            background=self._threads.metadata,
            log=self._threads.log,
            discovery=self._threads.discovery,
            deletion=self._threads.deletion,
            rng=random.SystemRandom(),
        )
        self._coordinator = JobCoordinator(
            services,
            on_change=self._changed,
            on_output=lambda output: self._board.add_output(output.uid, output.payload),
        )
        self._slots.coordinator = self._coordinator
        self._board = LocalBoard(self._clock, self._coordinator.view())
        threading.Thread(target=self._run, name=f"job-{submission.name}", daemon=True).start()

    # ---- for clients -----------------------------------------------------------

    @property
    def job_id(self) -> JobId:
        """Id of the job."""
        return self._job_id

    def view(self) -> JobView:
        """Return how the job stands now."""
        return self._board.view

    def metrics(self) -> JobMetrics:
        """Return what the slots have counted and measured."""
        return JobMetrics.of(self._board.view, self._coordinator.reports.progress, self._clock.wall_ms())

    def request(self, request: ClientRequest) -> str:
        """Have a request carried out, wait for its outcome and return it."""
        self._mailbox.post(lambda: self._coordinator.request(request))
        request_id = request.request_id
        view = self._board.wait_until(
            lambda view: view.status.terminal or view.outcome(request_id) is not None, None
        )
        outcome = view.outcome(request_id)
        if outcome is None:
            raise RaystreamError("job ended before the request was carried out", status=view.status.value)
        if outcome.error is not None:
            raise outcome.error
        return outcome.answer

    def wait(
        self, timeout_s: float | None, *, until: frozenset[JobStatus], listener: OutputListener | None
    ) -> JobView:
        """Wait for a status, or for the end of the job, and return the view."""
        return self._board.wait_until(
            lambda view: view.status in until or view.status.terminal, timeout_s, listener
        )

    # ---- the job's thread --------------------------------------------------------

    def _run(self) -> None:
        try:
            self._coordinator.start()
            while not self._coordinator.finished:
                self._round()
        except BaseException as error:
            logger.exception("local job broke down")
            self._slots.release(lambda: None)
            self._board.break_down(ProtocolError("local job broke down", cause=repr(error)))
        finally:
            self._threads.close()

    def _round(self) -> None:
        self._woken.clear()  # First: whatever is posted from here on interrupts the wait below.
        worked = self._mailbox.run_pending()
        worked = self._coordinator.step() or worked
        worked = self._slots.step() or worked
        now_ms = self._clock.monotonic_ms()
        if self._shows_news or now_ms >= self._publish_ms or not worked:
            self._shows_news, self._publish_ms = False, now_ms + PUBLISH_INTERVAL_MS
            self._board.publish(self._coordinator.view())
        if worked or self._coordinator.finished:
            return
        deadlines = (self._coordinator.next_deadline_ms(), self._slots.next_deadline_ms())
        next_ms = min((deadline for deadline in deadlines if deadline is not None), default=None)
        wait_ms = None if next_ms is None else max(next_ms - now_ms, 0.0)
        self._woken.wait(None if wait_ms is None else wait_ms / 1000)

    def _changed(self) -> None:
        self._shows_news = True


class LocalRunner:
    """Runs jobs in this process."""

    def submit(self, submission: Submission) -> JobHandle:
        """Start a job and return at once."""
        job = LocalJob(submission)
        _jobs[job.job_id] = job
        while len(_jobs) > JOBS_REMEMBERED_MAX:
            del _jobs[next(iter(_jobs))]
        return job

    def attach(self, job_id: str, *, address: str | None = None) -> JobHandle:
        """Return a handle on a job that this process has submitted before."""
        job = _jobs.get(JobId(job_id))
        if job is None:
            raise JobNotFoundError(
                "no job of this process has this id",
                job_id=job_id,
                hint="the local runner knows only the jobs of its own process",
            )
        return job


_jobs: dict[JobId, LocalJob] = {}
