"""What the parts of a job's coordinator share: the job, its storage, clock and background."""

import heapq
import itertools
import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from raystream.clock import Clock
from raystream.config.options import JobConfig
from raystream.errors import ConfigError, GraphError, RaystreamError, StateCorruptError, StateRestoreError
from raystream.graph.physical import PhysicalPlan
from raystream.ids import JobId, SlotId
from raystream.operators.operator import Background
from raystream.protocol.job_failures import Failure
from raystream.runtime import messages as msg
from raystream.runtime.coordinator_storage import JobStorage


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSubmission:
    """A job as its coordinator gets it."""

    job_id: JobId
    name: str
    plan: PhysicalPlan
    config: JobConfig
    program: bytes
    """The plan and the code of the job, of `raystream.runtime.program.pack`; goes to every slot."""


class SlotPool(Protocol):
    """Where a job's slots come from.  Answers come as calls of the coordinator, on its thread."""

    def acquire(self, slots: Sequence[SlotId]) -> None:
        """Get a process for each slot; answered by `slot_acquired` or `slot_lost` for each."""

    def send(self, slot: SlotId, command: msg.Command) -> None:
        """Hand a command to a slot, in order; a slot that is gone is reported by `slot_lost`."""

    def kill(self, slot: SlotId) -> None:
        """End the process of a slot at once; answered by `slot_lost`."""

    def dismiss(self, slots: Sequence[SlotId], *, again: Collection[SlotId] = ()) -> None:
        """End the processes of slots that are not needed, be they there yet or not; nothing is answered.

        Args:
            slots: whose processes end.
            again: slots that will be acquired again.
        """

    def release(self, released: Callable[[], None]) -> None:
        """End all processes; `released` is called when none is left.  Nothing else is answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorServices:
    """The world of one coordinator.

    Attributes:
        background: what the coordinator waits for; its `done` calls come on the coordinator's thread.
        log: likewise, for the job log alone.
        discovery: likewise, for the split discovery of sources.
        deletion: likewise, for files that nothing needs any more.
        rng: decides everything random, so that the simulation can repeat it.
        inherits: an earlier process was given the job, and may still wake up.
    """

    submission: JobSubmission
    storage: JobStorage
    slots: SlotPool
    clock: Clock
    background: Background
    log: Background
    discovery: Background
    deletion: Background
    rng: random.Random
    inherits: bool = False


class Timers:
    """Calls to be made at a time of the monotonic clock, on the thread of whoever runs them."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()  # Keeps calls of one time in order.

    @property
    def next_deadline_ms(self) -> float | None:
        """When the next call is due; None when there is none."""
        return self._due[0][0] if self._due else None

    def add(self, due_ms: float, call: Callable[[], None]) -> None:
        """Make a call at this time."""
        heapq.heappush(self._due, (due_ms, next(self._numbers), call))

    def run_due(self, now_ms: float) -> None:
        """Make the calls that are due."""
        while self._due and self._due[0][0] <= now_ms:
            heapq.heappop(self._due)[2]()


_NEVER_RETRIED = (ConfigError, GraphError, StateRestoreError, StateCorruptError)


def as_error(error: Exception, doing: str) -> RaystreamError:
    """Return an exception of blocking work as an error of ours."""
    if isinstance(error, RaystreamError):
        return error
    wrapped = RaystreamError(f"{doing} failed", cause=repr(error))
    wrapped.__cause__ = error
    return wrapped


def failure_of(error: RaystreamError) -> Failure:
    """Return what an error outside of the slots means for the attempt."""
    return Failure(error, retryable=not isinstance(error, _NEVER_RETRIED))
