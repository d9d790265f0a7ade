"""The thread of a job master: mail, the coordinator's and the slots' timers, round after round.

    mail (reports, requests, Ray's answers, outcomes of background work)
      -> what is due -> commands to the slots -> publish -> wait for mail or the next deadline

Everything that concerns the job happens on this thread, so nothing in it is locked.  Other threads
post mail and read the publication.  Holds no decisions, and knows no Ray: it drives a pool.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

from raystream.api.runner import ClientRequest
from raystream.clock import Clock
from raystream.cluster.publication import Publication
from raystream.cluster.worker import WorkerInfo
from raystream.errors import ProtocolError
from raystream.ids import JobStatus, SlotId
from raystream.operators.user_code import said
from raystream.runtime import messages as msg
from raystream.runtime.coordinator import JobCoordinator
from raystream.runtime.coordinator_services import CoordinatorServices, SlotPool
from raystream.runtime.coordinator_view import JobView
from raystream.runtime.mailbox import Mailbox

logger = logging.getLogger(__name__)


class DrivenPool(SlotPool, Protocol):
    """A pool of slots that the loop drives."""

    @property
    def waiting_for(self) -> str:
        """What starting slots wait for, in words; empty when nothing is known."""

    @property
    def workers(self) -> tuple[WorkerInfo, ...]:
        """Where the slots run."""

    def takes(self, slot: SlotId, incarnation: int, batch: int) -> bool:
        """Return whether a batch of reports counts."""

    def step(self) -> None:
        """Do what is due."""

    def flush(self) -> None:
        """Send what the slots are to get."""

    def next_deadline_ms(self) -> float | None:
        """Return when `step` has something to do."""


class JobLoop:
    """Drives the coordinator of one job.

    Args:
        clock: for deadlines.
        ended: called on the loop's thread when the job has ended; the loop goes on, to answer clients.
    """

    def __init__(self, clock: Clock, ended: Callable[[], None]) -> None:
        self._clock = clock
        self._tell_ended = ended
        self._woken = threading.Event()
        self._news = True
        self._ended = False
        self.mailbox = Mailbox(self._woken.set)
        self.workers: tuple[WorkerInfo, ...] = ()

    def prepare(self, services: CoordinatorServices, pool: DrivenPool) -> JobCoordinator:
        """Make the coordinator; `services.background` must post to `mailbox`."""
        self._pool = pool
        self._inherits = services.inherits
        self._coordinator = JobCoordinator(services, on_change=self.touch, on_output=self._output)
        self.publication = Publication(self._view())
        return self._coordinator

    def start(self) -> None:
        """Run the job in a thread."""
        threading.Thread(target=self._run, name="job", daemon=True).start()

    def touch(self) -> None:
        """What the view shows has changed; on the loop's thread."""
        self._news = True

    # ---- from other threads ----------------------------------------------------

    def reported(self, slot: SlotId, incarnation: int, batch: int, reports: Sequence[msg.Report]) -> None:
        """Take a batch of reports of a slot."""
        self.mailbox.post(lambda: self._take(slot, incarnation, batch, reports))

    def requested(self, request: ClientRequest) -> None:
        """Take a client's request; the answer is in the view."""
        self.mailbox.post(lambda: self._coordinator.request(request))

    # ---- on the loop's thread ----------------------------------------------------

    def _run(self) -> None:
        self.mailbox.post(self._coordinator.start)
        try:
            while True:
                self._round()
        except BaseException as error:
            # A bug of ours.  What the log says is still true; nothing is added to it.
            logger.exception("job master failed")
            over = threading.Event()
            self._pool.release(over.set)
            failure = ProtocolError("job master failed", cause=said(error))
            failed = replace(self.publication.view, status=JobStatus.FAILED, error=failure)
            self.publication.publish(failed, news=True)
            self._tell_ended()
            self._drive_pool_until(over)

    def _drive_pool_until(self, over: threading.Event) -> None:
        """See released slots to their end without the coordinator: what they hold is for other jobs."""
        while not over.is_set():
            self._woken.clear()
            while (call := self.mailbox.take()) is not None:
                with suppress(BaseException):  # It may be for the coordinator, which is broken.
                    call()
            self._pool.step()
            self._wait(self._pool.next_deadline_ms())

    def _round(self) -> None:
        self._woken.clear()  # Before the mail is taken: what is posted later wakes the wait below.
        self.mailbox.run_pending()
        self._coordinator.step()
        self._pool.step()
        self._pool.flush()
        self._publish()
        deadlines = (self._coordinator.next_deadline_ms(), self._pool.next_deadline_ms())
        self._wait(min((deadline for deadline in deadlines if deadline is not None), default=None))

    def _wait(self, until_ms: float | None) -> None:
        """Wait for mail, at most until a time.  (Whoever calls has looked at the mail since `clear`.)"""
        wait_ms = None if until_ms is None else max(until_ms - self._clock.monotonic_ms(), 0.0)
        self._woken.wait(None if wait_ms is None else wait_ms / 1000.0)

    def _publish(self) -> None:
        news, self._news = self._news, False
        self.workers = self._pool.workers
        self.publication.progress = self._coordinator.reports.progress
        self.publication.publish(self._view(), news=news)
        if self._coordinator.finished and not self._ended:
            self._ended = True
            self._tell_ended()

    def _view(self) -> JobView:
        view = self._coordinator.view()
        missing = self._pool.waiting_for
        view = replace(view, waiting_for=missing) if missing and not view.status.terminal else view
        if not self._inherits:
            return replace(view, recovering=False)  # There is nothing to find out.
        # The attempt that counts is another master's, until the log has been read and the next one begins.
        created = view.status is JobStatus.CREATED
        return replace(view, status=JobStatus.RESTARTING) if created else view

    def _take(self, slot: SlotId, incarnation: int, batch: int, reports: Sequence[msg.Report]) -> None:
        if self._pool.takes(slot, incarnation, batch):
            for report in reports:
                self._coordinator.slot_reported(report)

    def _output(self, output: msg.ClientOutput) -> None:
        self.publication.add_output(output.uid, output.payload)
