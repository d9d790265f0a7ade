"""What the tests of the checkpoint machine share: a machine with two subtasks, driven by hand."""

import random

from raystream.errors import CheckpointError, StorageError
from raystream.handles import SavepointFormat, SubtaskSnapshot
from raystream.ids import Attempt, CheckpointId, VertexId
from raystream.protocol.checkpoint import CheckpointCoordinator
from raystream.protocol.checkpoint_commands import RecordFailure
from raystream.protocol.checkpoint_requests import CheckpointRequests, Purpose, Request
from raystream.protocol.recovery import RecoveryPoint
from raystream.protocol.retention import Retention

SUBTASKS = [(VertexId(0), 0), (VertexId(1), 0)]
INTERVAL_MS = 100
TIMEOUT_MS = 1_000

DECLINED = CheckpointError("subtask could not take part")
REFUSED = StorageError("store refused")


def snapshot(subtask, size=0):
    vertex, index = subtask
    return SubtaskSnapshot(vertex=vertex, subtask=index, operators=(), sync_ms=float(size))


class Driver:
    """A machine and its clock; every call validates it."""

    def __init__(
        self,
        *,
        interval_ms=INTERVAL_MS,
        max_concurrent=1,
        num_retained=1,
        tolerable=0,
        min_pause_ms=0,
        delete_on_cancellation=False,
        older_allowed=True,
    ):
        self.now_ms = 0
        self.attempt = Attempt(0)
        self.machine = CheckpointCoordinator(
            subtasks=SUBTASKS,
            requests=CheckpointRequests(
                interval_ms, min_pause_ms=min_pause_ms, max_concurrent=max_concurrent, rng=random.Random(1)
            ),
            recovery=RecoveryPoint(
                Retention(num_retained, delete_on_cancellation=delete_on_cancellation),
                older_allowed=older_allowed,
            ),
            timeout_ms=TIMEOUT_MS,
            tolerable_failures=tolerable,
        )

    def __getattr__(self, event):
        """Call an event of the machine; those that need the time get it."""
        method = getattr(self.machine, event)

        def call(*arguments, **named):
            commands = method(*arguments, **named)
            self.machine.validate()
            return commands

        return call

    def recovery_point_is(self, checkpoint_id):
        return self.machine.recovery_point == checkpoint_id

    def start_attempt(self):
        self.attempt = Attempt(self.attempt + 1)
        return self.attempt_started(self.now_ms, self.attempt)

    def tick(self, ms=INTERVAL_MS):
        self.now_ms += ms
        return self.time_passed(self.now_ms)

    def ack(self, checkpoint_id, subtask, *, attempt=None):
        return self.snapshot_acked(
            self.now_ms, attempt or self.attempt, CheckpointId(checkpoint_id), snapshot(subtask)
        )

    def ack_all(self, checkpoint_id):
        return [command for subtask in SUBTASKS for command in self.ack(checkpoint_id, subtask)]

    def written(self, checkpoint_id):
        return self.metadata_written(self.now_ms, CheckpointId(checkpoint_id))

    def logged(self, checkpoint_id):
        return self.completion_logged(self.now_ms, CheckpointId(checkpoint_id))

    def complete(self, checkpoint_id):
        return self.ack_all(checkpoint_id) + self.written(checkpoint_id) + self.logged(checkpoint_id)

    def decline(self, checkpoint_id, error=DECLINED):
        return self.snapshot_declined(self.now_ms, self.attempt, CheckpointId(checkpoint_id), error)

    def savepoint(self, request_id, *, stop=False, base="", wanted=SavepointFormat.CANONICAL, drain=False):
        purpose = Purpose.STOP if stop or drain else Purpose.SAVEPOINT
        request = Request(purpose, request_id, base, wanted, drain=drain)
        return self.checkpoint_requested(self.now_ms, request)

    def checkpoint(self, request_id, *, full=False):
        return self.checkpoint_requested(self.now_ms, Request(Purpose.MANUAL, request_id, full=full))


def running(**options):
    driver = Driver(**options)
    driver.start_attempt()
    return driver


def kinds(commands):
    return [type(command) for command in commands]


def reasons(commands):
    return [command.reason for command in commands if isinstance(command, RecordFailure)]


def one(commands, kind):
    found = [command for command in commands if isinstance(command, kind)]
    assert len(found) == 1, commands
    return found[0]
