"""Which checkpoint starts next, and when: the queue of requests, without any I/O.

Knows what was asked for, the period and how much is pending; knows nothing of acks,
files or how a checkpoint ends.  `raystream.protocol.checkpoint` asks it after every event.

    savepoints  >  manual checkpoints  >  the final checkpoint  >  periodic ones

* A savepoint starts whatever is pending, but for too many other savepoints, since every pending
  one holds a copy of the state; one that stops the job waits for other savepoints to end, and
  nothing starts after it.  The checkpoint of a rescale is one of these.
* A manual checkpoint starts when fewer than `max_concurrent` are pending, whatever the pause.
* The final checkpoint of a job whose input has ended waits for what clients want, and keeps
  periodic ones from starting.
* A periodic checkpoint starts when its time has come, fewer than `max_concurrent` are pending
  and the last completion is `min_pause_ms` ago.  The time for the next one counts from its start.

Source: Flink's `CheckpointRequestDecider`.
"""

import random
from collections import deque
from dataclasses import dataclass
from enum import Enum

from raystream.errors import CheckpointError, ConfigError, RaystreamError
from raystream.handles import SavepointFormat

SAVEPOINTS_WAITING_MAX = 100
"""Requests that wait for the job to run, or for a stop to end; more are refused."""

SAVEPOINTS_PENDING_MAX = 4
"""Savepoints that are being taken at once; more wait."""

FINAL_RETRY_MS = 1_000
"""Time between two tries of the final checkpoint."""


class Purpose(Enum):
    """What a checkpoint is taken for."""

    PERIODIC = "periodic"
    MANUAL = "manual"
    """A checkpoint like a periodic one, that a client wants now."""
    FINAL = "final"
    """All input has ended; when it is complete the job commits and ends."""
    SAVEPOINT = "savepoint"
    STOP = "stop"
    """A savepoint after which the job commits and ends."""
    RESCALE = "rescale"
    """A checkpoint after which the attempt ends, and the next one has another parallelism."""

    @property
    def savepoint(self) -> bool:
        """True when the snapshot belongs to the user: never subsumed, never deleted once complete."""
        return self in (Purpose.SAVEPOINT, Purpose.STOP)

    @property
    def noun(self) -> str:
        """What a client that asked for it calls it."""
        return "savepoint" if self.savepoint else "checkpoint"

    @property
    def recovers(self) -> bool:
        """True when a failure after its completion restores it."""
        return self is not Purpose.SAVEPOINT

    @property
    def ends_job(self) -> bool:
        """True when the job ends with its completion."""
        return self in (Purpose.FINAL, Purpose.STOP)

    @property
    def ends_attempt(self) -> bool:
        """True when nothing may start until it has completed or failed."""
        return self.ends_job or self is Purpose.RESCALE


@dataclass(frozen=True, slots=True)
class Request:
    """A checkpoint that is to start now."""

    purpose: Purpose
    request_id: str = ""
    """Of the client's request; empty when no client wants it."""
    base: str = ""
    """Directory that the client wants the savepoint in; empty for the configured one."""
    format: SavepointFormat = SavepointFormat.CANONICAL
    """Of the savepoint."""
    drain: bool = False
    """The sources end before the savepoint that stops the job."""
    full: bool = False
    """The manual checkpoint refers to no file of an older one."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is pending now."""

    pending: int
    """All checkpoints and savepoints."""
    savepoints: int
    ending: bool
    """One that ends the attempt is among them."""
    manual: int = 0
    """Checkpoints that clients wait for."""


class CheckpointRequests:
    """Decides which checkpoint starts next.

    Args:
        interval_ms: time between the starts of periodic checkpoints, at least `min_pause_ms`;
            None for none.
        min_pause_ms: least time from a completion to a periodic start.
        max_concurrent: pending checkpoints above which no periodic one starts, at least 1.
        rng: draws the time of the first one, so that many jobs do not start theirs together.
    """

    def __init__(
        self, interval_ms: int | None, *, min_pause_ms: int, max_concurrent: int, rng: random.Random
    ) -> None:
        assert interval_ms is None or interval_ms >= min_pause_ms, (interval_ms, min_pause_ms)
        assert max_concurrent >= 1, max_concurrent
        self._interval_ms = interval_ms
        self._min_pause_ms = min_pause_ms
        self._max_concurrent = max_concurrent
        self._rng = rng
        self._savepoints: deque[Request] = deque()
        self._manual: deque[Request] = deque()
        self._periodic_ms: float | None = None  # When the next one is due; None: no attempt, or none wanted.
        self._final_ms: float | None = None  # When the final one may start; None: input has not ended.
        self._pause_until_ms = float("-inf")

    @property
    def periodic(self) -> bool:
        """False when checkpointing is off, so that only savepoints are taken."""
        return self._interval_ms is not None

    def attempt_started(self, now_ms: float) -> None:
        """Begin to count the period."""
        if self._interval_ms is not None:
            self._periodic_ms = now_ms + self._rng.uniform(self._min_pause_ms, self._interval_ms)

    def attempt_ended(self) -> None:
        """Forget what only this attempt wanted; savepoints that have not started wait for the next."""
        self._periodic_ms = None
        self._final_ms = None

    def requested(self, request: Request) -> RaystreamError | None:
        """Queue what a client wants, or return why it can not have it."""
        queue = self._manual if request.purpose is Purpose.MANUAL else self._savepoints
        if request.purpose is Purpose.MANUAL and not self.periodic:
            return ConfigError(
                "checkpoint was requested of a job whose checkpointing is off",
                hint="set execution.checkpointing.interval, or take a savepoint, which needs none",
            )
        if len(queue) >= SAVEPOINTS_WAITING_MAX:
            return too_many_wait(request.purpose)
        queue.append(request)
        return None

    def final_wanted(self, now_ms: float) -> None:
        """All input has ended, or the final checkpoint is to be tried again from this time on."""
        self._final_ms = now_ms

    def checkpoint_completed(self, now_ms: float) -> None:
        """Begin the pause."""
        self._pause_until_ms = now_ms + self._min_pause_ms

    def take(self, now_ms: float, load: Load) -> Request | None:
        """Remove and return the request to start now, or None."""
        if load.ending:
            return None
        if self._savepoints:
            at_once = 1 if self._savepoints[0].purpose.ends_attempt else SAVEPOINTS_PENDING_MAX
            return self._savepoints.popleft() if load.savepoints < at_once else None
        if self._manual:
            return self._manual.popleft() if load.pending < self._max_concurrent else None
        due_ms = self.deadline_ms(load)
        if due_ms is None or now_ms < due_ms:
            return None
        if self._final_ms is not None:
            self._final_ms = None
            return Request(Purpose.FINAL)
        assert self._interval_ms is not None, "a periodic checkpoint is due without a period"
        self._periodic_ms = now_ms + self._interval_ms
        return Request(Purpose.PERIODIC)

    def drain(self) -> list[Request]:
        """Remove everything that waits, since the job has ended; return what a client is to be told of.

        Who wants the job rescaled is told by `raystream.protocol.rescale`, which has asked for it.
        """
        requests = (*self._savepoints, *self._manual)
        waiting = [request for request in requests if request.purpose is not Purpose.RESCALE]
        self._savepoints.clear()
        self._manual.clear()
        return waiting

    def deadline_ms(self, load: Load) -> float | None:
        """Return when `take` has something new to say, or None when only an event can change that."""
        if load.ending or self._savepoints or self._manual:
            return None  # What clients want starts at once, or as soon as something else has ended.
        if self._final_ms is not None:
            return None if load.savepoints or load.manual else self._final_ms
        if self._periodic_ms is None or load.pending >= self._max_concurrent:
            return None
        return max(self._periodic_ms, self._pause_until_ms)

    def validate(self) -> None:
        """Assert every invariant."""
        assert max(len(self._savepoints), len(self._manual)) <= SAVEPOINTS_WAITING_MAX
        assert all(request.request_id for request in self._savepoints)
        assert all(request.purpose is Purpose.MANUAL and request.request_id for request in self._manual)
        assert self.periodic or not self._manual
        assert self._periodic_ms is None or self._interval_ms is not None


def too_many_wait(purpose: Purpose) -> CheckpointError:
    """Return the answer to a request that does not even wait."""
    return CheckpointError(f"too many {purpose.noun}s wait", hint="try again when some have completed")
