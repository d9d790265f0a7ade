"""The life of a job: attempts, their failures, and the job's end; the state machine.

    CREATED --> PREPARING --> LOGGING --> ACQUIRING --> DEPLOYING --> CONNECTING --> RUNNING --> COMMITTING
                    ^             |            |              |              |            |            |
                    |             +------------+--------------+--------------+------------+------------+
                    |                                         | failure, cancellation, all committed
                    |  restart                                v
                    +------------------------------------- STOPPING --> CLOSING --> ENDED

STOPPING is left when no slot runs anything of the attempt, no checkpoint of it can complete any
more, and its `Aim` is clear.  Peers of a dead slot report broken connections before the death is
known, so a failure that is probably a consequence waits briefly for its cause.

When the final checkpoint or a stop savepoint is complete, only commits are left to do.  A failed attempt
is then followed by one that restores it: restoring commits, so when all its slots are ready the job has
ended, and no record is processed.  The checkpoint of a rescale ends its attempt, and the next one is in
another shape, or in other processes.  A job master that goes on after another one begins in STOPPING.

Knows numbers of slots and names of subtasks; knows nothing of processes and files.  From any phase
a conflict in the job log leads to ABANDONED: the job lives on elsewhere.

Source: Flink's `AdaptiveScheduler` states; Ray Train's controller.
"""

from raystream.errors import RaystreamError
from raystream.ids import Attempt, JobStatus, SlotId
from raystream.protocol.checkpoint_requests import Purpose, Request
from raystream.protocol.history import History
from raystream.protocol.job_commands import (
    AbandonJob,
    AcquireSlots,
    BeginCheckpoints,
    Command,
    CommitSlots,
    ConnectSlots,
    DeploySlots,
    EndCheckpoints,
    KillSlot,
    LogAttempt,
    LogCancel,
    LogStop,
    PrepareAttempt,
    ReshapeJob,
    ResolveCancel,
    StartSlots,
    StopSlots,
    TakeFinalCheckpoint,
    TakeStopSavepoint,
)
from raystream.protocol.job_end import JobEnd, refusal
from raystream.protocol.job_failures import Failure, FailureJudge
from raystream.protocol.job_past import JobPast
from raystream.protocol.job_phases import TERMINAL_STATUS, TRANSITIONS, Aim, Phase, status_of
from raystream.protocol.rescale import RestartRescaled
from raystream.protocol.restart import GiveUp, Restart, RestartStrategy
from raystream.protocol.slot_roster import SlotRoster, SlotState
from raystream.protocol.subtasks import JobShape, Roll, Subtask


class Job:
    """Decides what a job does next.

    Args:
        shape: of the job, until it is rescaled.
        strategy: whether and when a failed attempt is followed by another one.
        cancellation_timeout_ms: time that slots have to stop before they are killed.
    """

    def __init__(self, *, shape: JobShape, strategy: RestartStrategy, cancellation_timeout_ms: float) -> None:
        self._shape = shape
        self._cancellation_timeout_ms = cancellation_timeout_ms
        self._roster = SlotRoster(shape.slots)
        self._phase = Phase.CREATED
        self._aim = Aim.NONE
        self._attempt = Attempt(0)
        self._unread = Roll(shape.subtasks)  # Who still has input.
        self._uncommitted = Roll(shape.subtasks)  # Who still has something to commit.
        self._judge = FailureJudge(strategy)
        self._settled = True  # Nothing of an earlier attempt can complete any more.
        self._only_commits_left = False  # What ends the job is complete.
        self._logged = False  # The job is in the log, or may be.
        self._conflict: RaystreamError | None = None
        self._end = JobEnd()
        self._history: History[Command] = History()
        self._done = self._history.done

    # ---- what everybody may know ---------------------------------------------

    @property
    def attempt(self) -> Attempt:
        """Number of the current or last attempt; 0 before the first."""
        return self._attempt

    @property
    def phase(self) -> Phase:
        """Where the machine stands."""
        return self._phase

    @property
    def status(self) -> JobStatus:
        """Where the job stands, as users see it."""
        return status_of(self._phase, self._aim, restarted=self._attempt > 1, ended_as=self._end.status)

    @property
    def error(self) -> RaystreamError | None:
        """Primary cause of the last failure, or what the job failed with."""
        return self._conflict or self._end.error or self._judge.error

    @property
    def failures(self) -> FailureJudge:
        """What has failed so far and what came of it; to be looked at only."""
        return self._judge

    @property
    def waiting_for(self) -> str:
        """What holds the job up, for people; empty when nothing does."""
        return self._roster.waiting_for if self._phase is Phase.ACQUIRING else ""

    @property
    def next_deadline_ms(self) -> float | None:
        """When `time_passed` has something to do, monotonic; None when only an event can change that."""
        deadlines = [self._roster.kill_ms, self._end.next_deadline_ms]
        stopping = self._phase is Phase.STOPPING
        if stopping and self._aim is Aim.UNDECIDED:
            deadlines.append(self._judge.decision_ms)
        elif stopping and self._aim is Aim.RESTART and self._stopped:
            deadlines.append(self._judge.restart_ms)
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    # ---- an attempt ----------------------------------------------------------

    def job_submitted(self, *, inherited: bool = False) -> list[Command]:
        """The job exists, perhaps in a log that its next master would read: start the first attempt."""
        self._logged = inherited
        return self._done("job_submitted", inherited, self._begin_attempt())

    def job_recovered(self, now_ms: float, past: JobPast) -> list[Command]:
        """The job ran under a job master that is gone: restart it, or do what is left of its end."""
        self._attempt, self._only_commits_left, self._logged = past.attempt, past.only_commits_left, True
        self._judge.recovered(now_ms, past)
        self._end.recovered(past.status)
        return self._done("job_recovered", past, self._stop(now_ms, past.aim) + self._advance(now_ms))

    def attempt_prepared(self, attempt: Attempt) -> list[Command]:
        """State to restore and splits are known."""
        commands: list[Command] = []
        if (attempt, Phase.PREPARING) == (self._attempt, self._phase):
            self._enter(Phase.LOGGING)
            self._logged = True
            commands = [LogAttempt(attempt)]
        return self._done("attempt_prepared", attempt, commands)

    def attempt_logged(self, attempt: Attempt) -> list[Command]:
        """The log says that the attempt has begun: nobody else may act for this job."""
        commands: list[Command] = []
        if (attempt, Phase.LOGGING) == (self._attempt, self._phase):
            self._enter(Phase.ACQUIRING)
            missing = self._roster.move_all(SlotState.ABSENT, SlotState.WANTED)
            commands = [AcquireSlots(missing)] if missing else []
            commands += self._deploy_if_complete()
        return self._done("attempt_logged", attempt, commands)

    def slot_acquired(self, slot: SlotId) -> list[Command]:
        """The process of a slot is there."""
        if self._roster.has(slot):
            self._roster.move(slot, SlotState.IDLE)
        return self._done("slot_acquired", slot, self._deploy_if_complete())

    def slot_deployed(self, slot: SlotId, address: str) -> list[Command]:
        """The subtasks of a slot exist, and it listens for its peers."""
        commands: list[Command] = []
        if self._roster.state(slot) is SlotState.DEPLOYING:
            self._roster.deployed(slot, address)
            if self._phase is Phase.DEPLOYING and self._roster.all_in(SlotState.DEPLOYED):
                self._enter(Phase.CONNECTING)
                self._roster.move_all(SlotState.DEPLOYED, SlotState.CONNECTING)
                commands = [ConnectSlots(self._attempt, self._roster.addresses)]
        return self._done("slot_deployed", slot, commands)

    def slot_ready(self, now_ms: float, slot: SlotId) -> list[Command]:
        """A slot has restored its state, committed what was pre-committed, and reached its peers."""
        commands: list[Command] = []
        if self._roster.state(slot) is SlotState.CONNECTING:
            self._roster.move(slot, SlotState.READY)
            if self._phase is Phase.CONNECTING and self._roster.all_in(SlotState.READY):
                commands = self._finish(now_ms) if self._only_commits_left else self._run()
        return self._done("slot_ready", slot, commands)

    def input_ended(self, subtask: Subtask) -> list[Command]:
        """A subtask has processed all its input."""
        complete = self._unread.answered(subtask) and self._phase is Phase.RUNNING
        return self._done("input_ended", subtask, [TakeFinalCheckpoint()] if complete else [])

    def checkpoint_completed(self, purpose: Purpose) -> list[Command]:
        """A log entry exists; after the end of an attempt too, until checkpoints are settled."""
        if purpose.recovers:
            self._judge.checkpoint_completed(ends_job=purpose.ends_job)
        if purpose.ends_job:
            self._only_commits_left = True
            if self._phase is Phase.RUNNING:
                self._enter(Phase.COMMITTING)
        return self._done("checkpoint_completed", purpose.value, [])

    def commit_without_checkpoint_due(self) -> list[Command]:
        """All input has ended and checkpointing is off."""
        commands: list[Command] = []
        if self._phase is Phase.RUNNING:
            self._enter(Phase.COMMITTING)
            self._judge.commit_without_checkpoint_begun()
            commands = [CommitSlots(self._attempt)]
        return self._done("commit_without_checkpoint_due", None, commands)

    def commits_done(self, now_ms: float, subtask: Subtask) -> list[Command]:
        """A subtask has committed everything."""
        complete = self._uncommitted.answered(subtask) and self._phase is Phase.COMMITTING
        return self._done("commits_done", subtask, self._finish(now_ms) if complete else [])

    def rescale_ready(self, now_ms: float, rescaled: RestartRescaled) -> list[Command]:
        """The checkpoint of a rescale is complete: go on in another shape, or in other processes."""
        self._roster.reshape_next(rescaled)
        commands: list[Command] = []
        if self._aim is Aim.NONE and self._phase not in (Phase.CREATED, Phase.COMMITTING):
            commands = self._stop(now_ms, Aim.RESTART) + self._advance(now_ms)
        return self._done("rescale_ready", rescaled, commands)

    # ---- failures ------------------------------------------------------------

    def slot_failed(self, now_ms: float, slot: SlotId, failure: Failure) -> list[Command]:
        """Something in a slot failed; the slot itself is still there."""
        return self._done("slot_failed", (slot, failure), self._fail(now_ms, failure))

    def slot_lost(self, now_ms: float, slot: SlotId, failure: Failure) -> list[Command]:
        """The process of a slot is gone, or is not to be had."""
        tells = self._roster.stops_by_itself(slot)
        needed = self._roster.lost(slot) and not self._phase.slotless  # Else it comes when all are acquired.
        commands = self._fail(now_ms, failure, tells=tells) if needed else []
        return self._done("slot_lost", (slot, failure), commands)

    def attempt_failed(self, now_ms: float, attempt: Attempt, failure: Failure) -> list[Command]:
        """Something outside the slots failed: preparation, the log, checkpoints, an enumerator."""
        commands = self._fail(now_ms, failure) if attempt == self._attempt else []
        return self._done("attempt_failed", (attempt, failure), commands)

    def slot_stopped(self, now_ms: float, slot: SlotId) -> list[Command]:
        """Nothing of the attempt runs in the slot any more."""
        commands: list[Command] = []
        if self._roster.state(slot) is SlotState.STOPPING:
            self._roster.move(slot, SlotState.IDLE)
            commands = self._advance(now_ms)
        return self._done("slot_stopped", slot, commands)

    def checkpoints_settled(self, now_ms: float) -> list[Command]:
        """No checkpoint of the attempt that ended can complete any more."""
        self._settled = True
        return self._done("checkpoints_settled", None, self._advance(now_ms))

    def log_conflicted(self, error: RaystreamError) -> list[Command]:
        """Somebody else owns the job log, or nobody can tell what it says: stop at once."""
        commands: list[Command] = []
        if self._phase not in (Phase.ABANDONED, Phase.ENDED):
            self._phase, self._conflict = Phase.ABANDONED, error
            commands = [AbandonJob(self._roster.slots(*(set(SlotState) - {SlotState.ABSENT})))]
        return self._done("log_conflicted", error, commands)

    # ---- clients -------------------------------------------------------------

    def stop_requested(self, request: Request) -> list[Command]:
        """A client wants the job to end with a savepoint."""
        logged = self._logged and self._aim in (Aim.NONE, Aim.UNDECIDED, Aim.RESTART)
        commands: list[Command] = [LogStop(request.request_id)] if logged else []
        return self._done("stop_requested", request.request_id, [*commands, TakeStopSavepoint(request)])

    def cancel_requested(self, now_ms: float, request_id: str) -> list[Command]:
        """A client wants the job to end now."""
        commands: list[Command] = []
        if self._aim in (Aim.NONE, Aim.UNDECIDED, Aim.RESTART):
            self._end.cancel_requested(request_id)
            commands = [LogCancel(request_id)] if self._logged else []
            commands += self._stop(now_ms, Aim.CANCEL) + self._advance(now_ms)
        elif self._aim is Aim.CANCEL and self._phase is not Phase.ENDED:
            self._end.cancel_requested(request_id)
        else:
            commands = [ResolveCancel(request_id, refusal(self._end.status or TERMINAL_STATUS[self._aim]))]
        return self._done("cancel_requested", request_id, commands)

    def time_passed(self, now_ms: float) -> list[Command]:
        """Do what is due."""
        commands = self._end.time_passed(now_ms) + self._advance(now_ms)
        commands += [KillSlot(slot) for slot in self._roster.overdue(now_ms)]
        return self._done("time_passed", now_ms, commands)

    # ---- the end -------------------------------------------------------------

    def end_logged(self) -> list[Command]:
        """The terminal entry exists."""
        return self._done("end_logged", None, self._end.end_logged())

    def end_not_logged(self, now_ms: float, error: RaystreamError) -> list[Command]:
        """The terminal entry could not be written."""
        return self._done("end_not_logged", error, self._end.end_not_logged(now_ms, error))

    def cleaned_up(self) -> list[Command]:
        """Nothing of the job is left but what it shall leave."""
        self._enter(Phase.ENDED)
        return self._done("cleaned_up", None, self._end.answers())

    # ---- inside --------------------------------------------------------------

    @property
    def _stopped(self) -> bool:
        return self._settled and not self._roster.slots(SlotState.STOPPING)

    def _begin_attempt(self) -> list[Command]:
        self._enter(Phase.PREPARING)
        commands: list[Command] = []
        if (reshaped := self._roster.reshape()) is not None:
            self._shape, dropped = reshaped
            commands = [ReshapeJob(self._shape, dropped)]
        self._attempt, self._aim = Attempt(self._attempt + 1), Aim.NONE
        self._unread, self._uncommitted = Roll(self._shape.subtasks), Roll(self._shape.subtasks)
        self._judge.attempt_started()
        return [*commands, PrepareAttempt(self._attempt)]

    def _deploy_if_complete(self) -> list[Command]:
        if self._phase is not Phase.ACQUIRING or not self._roster.all_in(SlotState.IDLE):
            return []
        self._enter(Phase.DEPLOYING)
        return [DeploySlots(self._attempt, self._roster.move_all(SlotState.IDLE, SlotState.DEPLOYING))]

    def _run(self) -> list[Command]:
        self._enter(Phase.RUNNING)
        return [StartSlots(self._attempt), BeginCheckpoints(self._attempt)]

    def _finish(self, now_ms: float) -> list[Command]:
        return self._stop(now_ms, Aim.FINISH) + self._advance(now_ms)

    def _fail(self, now_ms: float, failure: Failure, *, tells: bool = True) -> list[Command]:
        """Take in a failure of the current attempt; `tells`: once that stops, it may be why it does."""
        if failure.passed_over:  # For a checkpoint before the one that would have ended the job.
            self._only_commits_left = False
        if self._phase.attempted:
            self._judge.failure_reported(now_ms, failure)
            return self._stop(now_ms, Aim.UNDECIDED) + self._advance(now_ms)
        if self._phase is Phase.STOPPING and self._aim is Aim.UNDECIDED:
            self._judge.failure_reported(now_ms, failure)
        elif self._phase is Phase.STOPPING and self._aim in (Aim.RESTART, Aim.FAIL):
            if (tells and self._judge.has_failure) or not failure.retryable:  # Else it stops for a rescale.
                self._judge.failure_reported(now_ms, failure)
            if not failure.retryable:
                self._aim = Aim.FAIL
        return self._advance(now_ms)

    def _stop(self, now_ms: float, aim: Aim) -> list[Command]:
        """Stop the attempt, unless that is under way, and say what follows."""
        self._aim = aim
        if self._phase is Phase.STOPPING:
            return []
        self._enter(Phase.STOPPING)
        self._settled = False
        commands: list[Command] = [EndCheckpoints()]
        if stopping := self._roster.stop_busy(now_ms + self._cancellation_timeout_ms):
            commands.append(StopSlots(self._attempt, stopping))
        return commands

    def _advance(self, now_ms: float) -> list[Command]:
        """Leave STOPPING when nothing holds it up."""
        if self._phase is not Phase.STOPPING:
            return []
        if self._aim is Aim.UNDECIDED:
            match self._judge.decide(now_ms):
                case Restart():
                    self._aim = Aim.RESTART
                case GiveUp():
                    self._aim = Aim.FAIL
        if not self._stopped or self._aim is Aim.UNDECIDED:
            return []
        if self._aim is not Aim.RESTART:
            self._enter(Phase.CLOSING)
            error = self._judge.error if self._aim is Aim.FAIL else None
            return self._end.begin(TERMINAL_STATUS[self._aim], error, logged=self._logged)
        return self._begin_attempt() if now_ms >= self._judge.restart_ms else []

    def _enter(self, phase: Phase) -> None:
        if phase not in TRANSITIONS[self._phase]:
            raise self._history.broken("job can not do this step", old=self._phase.value, new=phase.value)
        self._phase = phase

    def validate(self) -> None:
        """Assert every invariant."""
        self._judge.validate()
        stopping = self._phase in (Phase.STOPPING, Phase.CLOSING, Phase.ENDED)
        assert self._phase is Phase.ABANDONED or stopping == (self._aim is not Aim.NONE), self._aim
        if self._phase.slotless or self._phase in (Phase.ACQUIRING, Phase.CLOSING):
            idle = self._roster.slots(SlotState.ABSENT, SlotState.WANTED, SlotState.IDLE)
            assert idle == self._roster.slots(*SlotState), "a slot still runs"
        assert self._phase is not Phase.RUNNING or self._roster.all_in(SlotState.READY)
