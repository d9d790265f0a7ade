"""What goes wrong in a simulated run, as data.

A run has a tuple of faults.  `Faults` draws it from the seed; a tuple written by hand does as
well.  Nothing here does anything: `raystream.testing.simulation_faults` makes faults happen.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from raystream.storage.layout import METADATA_NAME

CHECKPOINTS = (1, 2, 3)
"""Checkpoints in which slots crash."""

START_MS = 300.0
"""Faults that come at a time come before this one, while most jobs still run."""


class CheckpointPhase(Enum):
    """A part of a checkpoint's life."""

    BEFORE_TRIGGER = "before-trigger"
    """The trigger is on its way to a slot."""
    ALIGNMENT = "alignment"
    """A barrier has arrived in a slot; other channels may still be without one."""
    ACKNOWLEDGED = "acknowledged"
    """A subtask has acknowledged, `_metadata` is not written."""
    METADATA_WRITTEN = "metadata-written"
    """`_metadata` is written, the log entry is not."""
    LOGGED = "logged"
    """The log entry is written, a slot does not know it."""
    COMMITTING = "committing"
    """A sink publishes what belongs to the checkpoint."""

    def __repr__(self) -> str:
        return str(self)


class Damage(Enum):
    """What happens to a frame."""

    LOST = "lost"
    REPEATED = "repeated"
    BIT_FLIPPED = "bit-flipped"

    def __repr__(self) -> str:
        return str(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotCrash:
    """The process of a slot dies in a phase of a checkpoint."""

    checkpoint_id: int
    phase: CheckpointPhase
    slot: int | None = None
    """Which one; None for the one in which it happens (slot 0 where no slot takes part)."""
    moment: int = 0
    """A phase has a moment for every subtask, message or file; the crash comes at this one, from 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotKill:
    """The process of a slot dies at a time, whatever it is doing."""

    at_ms: float
    slot: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotPause:
    """A slot does nothing for a while."""

    at_ms: float
    slot: int
    duration_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageFailure:
    """Some calls of the store in a row fail, from the n-th on, counted from 0."""

    call: int
    count: int = 1
    where: str = ""
    """Only calls whose URL contains this are counted, and fail."""
    effective: bool = False
    """The call does what it should, and only its answer is an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointDamage:
    """A file of a checkpoint is lost, or a bit of it flips, as soon as the checkpoint is complete.

    Never drawn: what follows depends on how many checkpoints are retained and on the sinks.
    """

    checkpoint_id: int
    where: str = ""
    """Only files whose URL contains this count; those of the checkpoint's directory, then shared ones that
    were written for it."""
    lost: bool = False
    """The file is not there any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkDelay:
    """The n-th piece of blocking work, such as an upload or a log entry, takes long."""

    work: int
    delay_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameDelay:
    """A connection holds the n-th frame, and with it all behind it, for a while."""

    frame: int
    delay_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameDamage:
    """The n-th frame does not arrive as it was sent."""

    frame: int
    damage: Damage


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionBreak:
    """A connection breaks with the n-th frame, while the slots at both ends live on."""

    frame: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Savepoint:
    """A client wants a savepoint; the job goes on."""

    at_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StopAndResume:
    """A client stops the job with a savepoint, and starts it again from there."""

    at_ms: float
    parallelism: int
    """Of the new start."""
    drain: bool = False
    """The sources end first; never drawn, since a job that was drained has another output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelAndResume:
    """A client cancels the job, and starts it again from the newest retained checkpoint, if there is one."""

    at_ms: float
    parallelism: int
    """Of the new start."""


Fault = (
    SlotCrash | SlotKill | SlotPause | StorageFailure | CheckpointDamage | WorkDelay | FrameDelay
    | FrameDamage | ConnectionBreak | Savepoint | StopAndResume | CancelAndResume
)  # fmt: skip
"""What happens to a run; what a client does counts, since it comes as untimely as a crash."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """How many faults of each kind a run has at most; which ones is drawn from its seed.

    Example:
        >>> Faults(crashes=1).draw(0, slot_count=2)[0].phase
        CheckpointPhase.BEFORE_TRIGGER
    """

    crashes: int = 3
    """Slots that die in a phase of a checkpoint.  The first one goes through all phases and
    checkpoints, seed by seed."""
    kills: int = 1
    pauses: int = 1
    storage_failures: int = 2
    work_delays: int = 2
    frame_delays: int = 2
    frame_damages: int = 1
    connection_breaks: int = 1
    savepoints: int = 1
    stops: int = 1
    cancels: int = 1
    parallelism_max: int = 3
    """Highest parallelism of a start after a stop or cancel."""

    def draw(self, seed: int, *, slot_count: int) -> tuple[Fault, ...]:
        """Return the faults of one run."""
        draw = _Draw(random.Random(f"faults/{seed}"), slot_count, self.parallelism_max)
        kinds: list[tuple[int, Callable[[], Fault]]] = [
            (self.crashes - 1, draw.crash),
            (self.kills, draw.kill),
            (self.pauses, draw.pause),
            (self.storage_failures, draw.storage_failure),
            (self.work_delays, draw.work_delay),
            (self.frame_delays, draw.frame_delay),
            (self.frame_damages, draw.frame_damage),
            (self.connection_breaks, draw.connection_break),
            (self.savepoints, draw.savepoint),
            (self.stops, draw.stop),
            (self.cancels, draw.cancel),
        ]
        faults: list[Fault] = [draw.nth_crash(seed)] if self.crashes else []
        for most, one in kinds:
            faults += [one() for _ in range(draw.rng.randint(0, max(most, 0)))]
        return tuple(faults)


NO_FAULTS = Faults(
    crashes=0,
    kills=0,
    pauses=0,
    storage_failures=0,
    work_delays=0,
    frame_delays=0,
    frame_damages=0,
    connection_breaks=0,
    savepoints=0,
    stops=0,
    cancels=0,
)


class _Draw:
    """Draws one fault of each kind."""

    def __init__(self, rng: random.Random, slot_count: int, parallelism_max: int) -> None:
        self.rng = rng
        self._slot_count = slot_count
        self._parallelism_max = parallelism_max

    def nth_crash(self, number: int) -> Fault:
        """Return the crash of this number; as many numbers in a row have every phase and checkpoint."""
        phases = list(CheckpointPhase)
        return SlotCrash(
            checkpoint_id=CHECKPOINTS[number // len(phases) % len(CHECKPOINTS)],
            phase=phases[number % len(phases)],
            slot=self._slot_or_none(),
        )

    def crash(self) -> Fault:
        rng = self.rng
        return SlotCrash(
            checkpoint_id=rng.choice(CHECKPOINTS),
            phase=rng.choice(list(CheckpointPhase)),
            slot=self._slot_or_none(),
            moment=rng.choice((0, 0, 1, 2, 3)),
        )

    def kill(self) -> Fault:
        return SlotKill(at_ms=self._time_ms(), slot=self._slot())

    def pause(self) -> Fault:
        return SlotPause(at_ms=self._time_ms(), slot=self._slot(), duration_ms=self._ms(1, 200))

    def storage_failure(self) -> Fault:
        rng = self.rng
        where = rng.choice(("", "", "/log", METADATA_NAME, "/pending", "/visible"))
        # More of the early calls: with them a job starts, and not every run has many.
        calls = 12 if where else rng.choice((30, 100, 300))
        return StorageFailure(
            call=rng.randrange(calls),
            count=rng.choice((1, 1, 1, 2, 5)),
            where=where,
            effective=rng.random() < 0.5,
        )

    def work_delay(self) -> Fault:
        return WorkDelay(work=self.rng.randrange(100), delay_ms=self._ms(10, 800))

    def frame_delay(self) -> Fault:
        return FrameDelay(frame=self._frame(), delay_ms=self._ms(5, 300))

    def frame_damage(self) -> Fault:
        return FrameDamage(frame=self._frame(), damage=self.rng.choice(list(Damage)))

    def connection_break(self) -> Fault:
        return ConnectionBreak(frame=self._frame())

    def savepoint(self) -> Fault:
        return Savepoint(at_ms=self._time_ms())

    def stop(self) -> Fault:
        return StopAndResume(at_ms=self._time_ms(), parallelism=self._parallelism())

    def cancel(self) -> Fault:
        return CancelAndResume(at_ms=self._time_ms(), parallelism=self._parallelism())

    def _ms(self, least: float, most: float) -> float:
        return round(self.rng.uniform(least, most), 3)

    def _time_ms(self) -> float:
        return self._ms(0, START_MS)

    def _frame(self) -> int:
        return self.rng.randrange(200)

    def _slot(self) -> int:
        return self.rng.randrange(self._slot_count)

    def _slot_or_none(self) -> int | None:
        return self.rng.choice((None, self._slot()))

    def _parallelism(self) -> int:
        return self.rng.randint(1, self._parallelism_max)
