"""A slot: one single-threaded loop that runs the subtasks of an attempt.

    mailbox -> sockets -> subtasks, most downstream first -> snapshot slices -> sources
    -> flush outputs whose linger time has passed -> wait, when there was nothing to do

The loop never blocks in a step: what may block goes to the background and comes back as
mail.  Other threads only `deliver` commands.  An error anywhere ends the attempt in this
slot; the slot itself lives on and takes the next one.
"""

import logging
import pickle
from collections.abc import Callable

from raystream.clock import Clock
from raystream.errors import (
    ConfigError,
    ConnectionLostError,
    GraphError,
    RaystreamError,
    StateCorruptError,
    StateRestoreError,
)
from raystream.ids import Attempt, SlotId
from raystream.operators.operator import Background
from raystream.runtime import messages as msg
from raystream.runtime.assembly import SlotServices
from raystream.runtime.attempt import SlotAttempt
from raystream.runtime.links import Links
from raystream.runtime.mailbox import Mailbox
from raystream.runtime.program import unpack
from raystream.storage.blobs import SnapshotFiles

logger = logging.getLogger(__name__)

_NEVER_RETRIED = (ConfigError, GraphError, StateRestoreError, StateCorruptError)


class Slot:
    """Runs one attempt after the other; driven by `run` in a thread, or step by step.

    Args:
        mailbox: calls that other threads post; its `wake` must interrupt `links.wait`.
        background: its `done` calls must come through `mailbox`.
        report: takes a report for the coordinator; must not block.
        files: blobs of snapshots.
    """

    def __init__(
        self,
        slot: SlotId,
        *,
        clock: Clock,
        mailbox: Mailbox,
        background: Background,
        links: Links,
        report: Callable[[msg.Report], None],
        files: SnapshotFiles | None = None,
    ) -> None:
        self.id = slot
        self._clock = clock
        self._mailbox = mailbox
        self._background = background
        self._links = links
        self._report = report
        self._files = files or SnapshotFiles()
        self._attempt: SlotAttempt | None = None
        self._number = 0
        self._failed = False
        self._closed = False
        self.rounds = 0

    def deliver(self, command: msg.Command) -> None:
        """Take a command from the coordinator; from any thread."""
        self._mailbox.post(lambda: self._handle(command))

    def run(self) -> None:
        """Run the loop until `close`."""
        while not self._closed:
            if not self.step():
                deadline_ms = self.next_deadline_ms()
                timeout_ms = None if deadline_ms is None else deadline_ms - self._clock.monotonic_ms()
                self._links.wait(None if timeout_ms is None else max(timeout_ms, 0.0))

    def close(self) -> None:
        """End the loop and drop its attempt; from any thread."""
        self._mailbox.post(self._close)

    def step(self) -> bool:
        """Do one round of the loop; True when there was anything to do."""
        self.rounds += 1
        worked = self._mailbox.run_pending()
        attempt = self._attempt
        if attempt is None:
            return worked
        if self._failed:
            return self._discard_input() or worked
        try:
            return attempt.round() or worked
        except Exception as error:
            self._fail(error)
            return True

    def next_deadline_ms(self) -> float | None:
        """Return when the loop has timed work, in ms of the monotonic clock; None when it has none."""
        if self._attempt is None or self._failed:
            return None
        return self._attempt.next_deadline_ms()

    def _discard_input(self) -> bool:
        """Read what peers of a failed attempt still send, so that no socket keeps the loop awake."""
        try:
            return self._links.poll()
        except Exception as error:
            logger.info(
                "connections of a failed attempt closed", extra={"slot": self.id, "cause": str(error)}
            )
            self._links.close()
            return True

    def _close(self) -> None:
        self._closed = True
        self._drop_attempt()

    def _handle(self, command: msg.Command) -> None:
        if isinstance(command, msg.Deploy) and command.attempt > self._number:
            self._deploy(command)
            return
        if command.attempt != self._number or isinstance(command, msg.Deploy):
            logger.info("command of another attempt dropped", extra={"attempt": command.attempt})
            return
        if isinstance(command, msg.StopAttempt):
            self._drop_attempt()
            self._report(msg.SlotStopped(attempt=command.attempt, slot=self.id))
        elif self._attempt is not None and not self._failed:
            try:
                _execute(self._attempt, command)
            except Exception as error:
                self._fail(error)

    def _deploy(self, command: msg.Deploy) -> None:
        self._drop_attempt()
        number = self._number = command.attempt
        self._failed = False
        try:
            services = SlotServices(
                clock=self._clock,
                background=_AttemptBackground(self, number),
                links=self._links,
                files=self._files,
                post=lambda call: self._mailbox.post(lambda: self._guarded(number, call)),
                report=self._report,
                failed=lambda error: self._mailbox.post(
                    lambda: self._guarded(number, lambda: self._fail(error))
                ),
            )
            self._attempt = SlotAttempt(command, unpack(command.program), services)
            self._attempt.deploy()
        except Exception as error:
            self._fail(error)

    def submit(self, number: int, work: Callable[[], object], done: Callable[[object], None]) -> None:
        """Run blocking work of an attempt; its outcome is dropped when the attempt is over."""
        self._background.submit(
            work, lambda result: self._guarded(number, lambda: self._background_done(done, result))
        )

    def _background_done(self, done: Callable[[object], None], result: object) -> None:
        done(result)
        if self._attempt is not None:
            self._attempt.report_commits()

    def _guarded(self, number: int, call: Callable[[], None]) -> None:
        """Make a call for an attempt, unless it is over; its error fails the attempt."""
        if number != self._number or self._attempt is None or self._failed:
            return
        try:
            call()
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._failed = True
        logger.warning("attempt failed in this slot", extra={"slot": self.id}, exc_info=error)
        self._report(
            msg.SlotFailed(
                attempt=Attempt(self._number),
                slot=self.id,
                error=_portable(error),
                consequence=isinstance(error, ConnectionLostError),
                retryable=not isinstance(error, _NEVER_RETRIED),
            )
        )

    def _drop_attempt(self) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is None:
            return
        try:
            attempt.close()
        except Exception as error:
            logger.warning("attempt did not close cleanly", extra={"slot": self.id}, exc_info=error)


class _AttemptBackground:
    """The slot's background, bound to one attempt."""

    def __init__(self, slot: Slot, number: int) -> None:
        self._slot = slot
        self._number = number

    def submit(self, work: Callable[[], object], done: Callable[[object], None]) -> None:
        """Call `work` in a thread, then `done` on the loop while the attempt lasts."""
        self._slot.submit(self._number, work, done)


def _execute(attempt: SlotAttempt, command: msg.Command) -> None:
    match command:
        case msg.Connect():
            attempt.connect(command.addresses)
        case msg.Start():
            attempt.start()
        case msg.AssignSplits():
            attempt.splits_assigned(command)
        case msg.TriggerCheckpoint():
            attempt.trigger(command)
        case msg.CheckpointCompleted():
            attempt.checkpoint_completed(command)
        case msg.CheckpointAborted():
            attempt.checkpoint_aborted(command)
        case msg.CommitAtEnd():
            attempt.commit_at_end()
        case _:
            raise AssertionError(f"command of a running attempt: {command!r}")


def _portable(error: Exception) -> RaystreamError:
    """Return the error in a form that reaches the coordinator."""
    if isinstance(error, RaystreamError):
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            return type(error)(error.message, hint=error.hint, cause=repr(error.context))
        return error
    return RaystreamError("slot failed", cause=f"{type(error).__name__}: {error}")
