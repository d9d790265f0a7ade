"""A slot: one single-threaded loop that runs the subtasks of an attempt.

    mailbox -> sockets -> subtasks, most downstream first -> sources -> timers -> snapshot slices
    -> flush outputs whose linger time has passed -> wait, when there was nothing to do

The loop never blocks in a step: what may block goes to the background and comes back as
mail.  Other threads only `deliver` commands.  An error anywhere ends the attempt in this
slot; the slot itself lives on and takes the next one.
"""

import logging
import traceback
from collections.abc import Callable
from functools import partial

from raystream.clock import Clock
from raystream.config.options import JobConfig
from raystream.errors import (
    ConfigError,
    ConnectionLostError,
    GraphError,
    OutputLostError,
    StateCorruptError,
    StateRestoreError,
)
from raystream.ids import Attempt, JobId, SlotId
from raystream.operators.operator import Background
from raystream.runtime import log_place
from raystream.runtime import messages as msg
from raystream.runtime.assembly import SlotServices
from raystream.runtime.attempt import SlotAttempt
from raystream.runtime.commit_order import CommitOrder
from raystream.runtime.links import Links
from raystream.runtime.mailbox import Mailbox
from raystream.runtime.portable_error import portable
from raystream.runtime.program import unpack
from raystream.runtime.upload import UploadsUnderWay
from raystream.state.open_backend import local_directory
from raystream.storage.blobs import SnapshotFiles
from raystream.storage.local_copies import LocalCopies, on_another_disk
from raystream.storage.stores import to_url

logger = logging.getLogger(__name__)

_Submit = Callable[[Callable[[], object], Callable[[object], None]], None]
_NEVER_RETRIED = (ConfigError, GraphError, StateRestoreError, StateCorruptError, OutputLostError)


class Slot:
    """Runs one attempt after the other; driven by `run` in a thread, or step by step.

    Args:
        mailbox: calls that other threads post; its `wake` must interrupt `links.wait`.
        uploads: writes and reads snapshots; its `done` calls must come through `mailbox`.
        commits: likewise, for what operators have to wait for.
        report: takes a report for the coordinator; may hold up only what is for the client, `ClientOutput`.
        files: blobs of snapshots.
        reclaim: called when an attempt was dropped, to free what user code holds in cycles.
        threads: whether state backends merge and link their files in threads of their own, which are no part
            of what a simulation decides.
    """

    def __init__(
        self,
        slot: SlotId,
        *,
        clock: Clock,
        mailbox: Mailbox,
        uploads: Background,
        commits: Background,
        links: Links,
        report: Callable[[msg.Report], None],
        files: SnapshotFiles | None = None,
        reclaim: Callable[[], object] = lambda: None,
        threads: bool = True,
    ) -> None:
        self.id = slot
        self._clock = clock
        self._mailbox = mailbox
        self._uploads = uploads
        self._under_way = UploadsUnderWay()
        self._commits = CommitOrder(commits, clock)
        self._links = links
        self._report = report
        self._files = files or SnapshotFiles()
        self._copies: LocalCopies | None = None
        self._reclaim = reclaim
        self._threads = threads
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
            self._commits.check()
            return attempt.round() or worked
        except BaseException as error:
            self._fail(error)
            return True

    def next_deadline_ms(self) -> float | None:
        """Return when the loop has timed work, in ms of the monotonic clock; None when it has none."""
        if self._attempt is None or self._failed:
            return None
        parts = (self._attempt, self._links, self._commits)
        deadlines = (part.next_deadline_ms() for part in parts)
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def _discard_input(self) -> bool:
        """Read what peers of a failed attempt still send, so that no socket keeps the loop awake."""
        try:
            return self._links.poll()
        except BaseException as error:
            logger.info(
                "connections of a failed attempt closed", extra={"slot": self.id, "cause": str(error)}
            )
            self._links.close()
            return True

    def _close(self) -> None:
        self._closed = True
        self._drop_attempt()
        if self._copies is not None:
            self._copies.close()

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
            except BaseException as error:
                self._fail(error)

    def _deploy(self, command: msg.Deploy) -> None:
        self._drop_attempt()
        number = self._number = command.attempt
        log_place.process.attempt = str(number)
        self._failed = False
        try:
            program = unpack(command.program)
            services = SlotServices(
                clock=self._clock,
                uploads=_AttemptBackground(self, number, self._uploads.submit),
                under_way=self._under_way,
                commits=_AttemptBackground(self, number, partial(self._commits.submit, number)),
                links=self._links,
                files=self._files_of(command.job_id, program.config),
                post=lambda call: self._mailbox.post(lambda: self._guarded(number, call)),
                report=self._report,
                failed=lambda error: self._mailbox.post(
                    lambda: self._guarded(number, lambda: self._fail(error))
                ),
                threads=self._threads,
            )
            self._attempt = SlotAttempt(command, program, services)
            self._attempt.deploy()
        except BaseException as error:
            self._fail(error)

    def _files_of(self, job_id: JobId, config: JobConfig) -> SnapshotFiles:
        """Return what reads and writes snapshots in an attempt, with the copies that outlive it."""
        store, parent = config.checkpointing.directory, local_directory(config.backend)
        near = not store or not on_another_disk(to_url(store), parent)
        if self._copies is None and config.checkpointing.local_backup and not near:
            self._copies = LocalCopies(parent, job_id, self._clock)
            self._files = SnapshotFiles(self._files.open_fs, self._copies)
        return self._files

    def background_done(self, number: int, done: Callable[[object], None], result: object) -> None:
        """Hand over the outcome of blocking work of an attempt; it is dropped when the attempt is over."""
        self._guarded(number, lambda: self._take_outcome(done, result))

    def _take_outcome(self, done: Callable[[object], None], result: object) -> None:
        done(result)
        if self._attempt is not None:
            self._attempt.report_commits()

    def _guarded(self, number: int, call: Callable[[], None]) -> None:
        """Make a call for an attempt, unless it is over; its error fails the attempt."""
        if number != self._number or self._attempt is None or self._failed:
            return
        try:
            call()
        except BaseException as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._failed = True
        restoring = self._attempt is not None and self._attempt.restoring
        consequence = isinstance(error, ConnectionLostError)
        if consequence:  # Another slot has ended, as all do with the job; what for is said there.
            logger.info("peer of this slot is gone", extra={"slot": self.id, "why": str(error)})
        else:
            logger.warning("attempt failed in this slot", extra={"slot": self.id}, exc_info=error)
        self._report(
            msg.SlotFailed(
                attempt=Attempt(self._number),
                slot=self.id,
                error=portable(error, "slot failed"),
                consequence=consequence,
                retryable=not isinstance(error, _NEVER_RETRIED),
                damage=isinstance(error, StateCorruptError) and restoring,
            )
        )
        _forget_frames(error)
        log_place.here.at = log_place.NOWHERE

    def _drop_attempt(self) -> None:
        attempt, self._attempt = self._attempt, None
        self._commits.drop_held()
        if attempt is None:
            return
        try:
            attempt.close()
        except BaseException as error:
            logger.warning("attempt did not close cleanly", extra={"slot": self.id}, exc_info=error)
            _forget_frames(error)
        del attempt
        self._reclaim()


class _AttemptBackground:
    """A background of the slot, bound to one attempt."""

    def __init__(self, slot: Slot, number: int, submit: _Submit) -> None:
        self._slot = slot
        self._number = number
        self._submit = submit

    def submit(self, work: Callable[[], object], done: Callable[[object], None]) -> None:
        """Call `work` in a thread, then `done` on the loop while the attempt lasts."""
        self._submit(work, partial(self._slot.background_done, self._number, done))


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


def _forget_frames(error: BaseException) -> None:
    """Empty the frames that an error came through; they hold records, operators and state, and the error."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__
