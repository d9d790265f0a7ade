"""What the tests of the job machine share: a job of two slots and two subtasks, driven by hand."""

from raystream.errors import ConfigError, ConnectionLostError, SlotLostError, UserCodeError
from raystream.ids import Attempt, SlotId, VertexId
from raystream.protocol.job import Job
from raystream.protocol.job_commands import AcquireSlots
from raystream.protocol.job_failures import Failure
from raystream.protocol.restart import FixedDelay
from raystream.protocol.subtasks import JobShape

SLOTS = (SlotId(0), SlotId(1))
SUBTASKS = ((VertexId(0), 0), (VertexId(0), 1))
DELAY_MS = 500
CANCELLATION_TIMEOUT_MS = 3_000

CRASH = Failure(UserCodeError("user function raised"))
LOST = Failure(SlotLostError("process of the slot is gone"))
ECHO = Failure(ConnectionLostError("connection broke"), consequence=True)
HOPELESS = Failure(ConfigError("no such file"), retryable=False)


class JobDriver:
    """A machine and its clock; every call validates it."""

    def __init__(self, *, strategy=None, restarts=3):
        self.now_ms = 0
        self.machine = Job(
            shape=JobShape(parallelism=2, slots=SLOTS, subtasks=frozenset(SUBTASKS)),
            strategy=strategy or FixedDelay(restarts, DELAY_MS),
            cancellation_timeout_ms=CANCELLATION_TIMEOUT_MS,
        )

    def __getattr__(self, event):
        method = getattr(self.machine, event)

        def call(*arguments, **named):
            commands = method(*arguments, **named)
            self.machine.validate()
            return commands

        return call

    @property
    def status(self):
        return self.machine.status.value

    @property
    def attempt(self):
        return self.machine.attempt

    def tick(self, ms):
        self.now_ms += ms
        return self.time_passed(self.now_ms)

    def each(self, event, *arguments):
        return [command for slot in SLOTS for command in event(*arguments, slot)]

    def acquire(self):
        self.attempt_prepared(self.attempt)
        return self.attempt_logged(self.attempt)

    def deploy(self):
        return [c for slot in SLOTS for c in self.slot_deployed(slot, f"address {slot}")]

    def ready(self):
        return [c for slot in SLOTS for c in self.slot_ready(self.now_ms, slot)]

    def run(self):
        """Bring an attempt that has just begun to RUNNING."""
        for command in self.acquire():
            for slot in command.slots if isinstance(command, AcquireSlots) else ():
                self.slot_acquired(slot)
        self.deploy()
        return self.ready()

    def fail(self, failure=CRASH, slot=SLOTS[0]):
        return self.slot_failed(self.now_ms, slot, failure)

    def lose(self, slot, failure=LOST):
        return self.slot_lost(self.now_ms, slot, failure)

    def stopped(self, *slots):
        return [c for slot in slots or SLOTS for c in self.slot_stopped(self.now_ms, slot)]

    def settled(self):
        return self.checkpoints_settled(self.now_ms)

    def end_of_input(self):
        return [c for subtask in SUBTASKS for c in self.input_ended(subtask)]

    def commits(self):
        return [c for subtask in SUBTASKS for c in self.commits_done(self.now_ms, subtask)]

    def cancel(self, request_id="c"):
        return self.cancel_requested(self.now_ms, request_id)


def submitted(**options):
    job = JobDriver(**options)
    assert [type(c).__name__ for c in job.job_submitted()] == ["PrepareAttempt"]
    assert job.attempt == Attempt(1)
    return job


def running(**options):
    job = submitted(**options)
    job.run()
    assert job.status == "RUNNING"
    return job


def failed(job):
    """Let the attempt fail and everything of it come to rest."""
    job.fail()
    job.stopped()
    return job.settled()
