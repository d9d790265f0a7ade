"""Operators without a subtask: a context, and a list in the place of what follows."""

from collections import deque

from raystream.operators.operator import OperatorContext
from raystream.testing.source_run import ManualClock


class ManualBackground:
    """Work waits until the test runs it."""

    def __init__(self):
        self.waiting = deque()

    def submit(self, work, done):
        self.waiting.append((work, done))

    def run_one(self):
        work, done = self.waiting.popleft()
        try:
            result = work()
        except Exception as error:
            result = error
        done(result)

    def run_all(self):
        while self.waiting:
            self.run_one()


class Run:
    """An operator that was set up, and everything that it does to its surroundings.

    Attributes:
        batches: what it emitted to its main output.
        log: the same, and between them what moves event time.
    """

    def __init__(self, operator, *, restored=None, tags=(), keyed_backend=None, emitted=None):
        self.operator = operator
        self.batches = []
        self.log = []
        self.side = {tag: [] for tag in tags}
        self.background = ManualBackground()
        self.failures = []
        self.requests = 0
        self.wakes = []
        self.lines = []
        self.context = OperatorContext(
            job_id="ab" * 16,
            uid="the-uid",
            name="the operator",
            subtask=3,
            parallelism=4,
            max_parallelism=128,
            attempt=2,
            clock=ManualClock(),
            background=self.background,
            restored=restored or {},
            keyed_backend=keyed_backend,
            request_splits=self._request,
            wake=lambda: self.wakes.append(None),
            wake_at=self.wakes.append,
            tell_client=self.lines.extend,
            deliver=self.lines.append,
            failed=self.failures.append,
            emitted=emitted,
        )
        operator.setup(
            self.context,
            self._emit,
            {tag: batches.append for tag, batches in self.side.items()},
            self.log.append,
        )

    def _emit(self, batch):
        self.batches.append(batch)
        self.log.append(batch)

    def _request(self):
        self.requests += 1

    @property
    def values(self):
        return [value for batch in self.batches for value in batch.values]

    @property
    def timestamps(self):
        return [batch.timestamps for batch in self.batches]
