"""What goes wrong in a simulated run, as data.

A run has a tuple of faults.  `Faults` draws it from the seed; a tuple written by hand does as
well.  Nothing here does anything: `raystream.testing.simulation_faults` makes faults happen.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

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


class Damage(Enum):
    """What happens to a frame."""

    LOST = "lost"
    REPEATED = "repeated"
    BIT_FLIPPED = "bit-flipped"


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
    effective: bool = False
    """The call does what it should, and only its answer is an error."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelAndResume:
    """A client cancels the job, and starts it again from the newest retained checkpoint, if there is one."""

    at_ms: float
    parallelism: int
    """Of the new start."""


Fault = (
    SlotCrash | SlotKill | SlotPause | StorageFailure | WorkDelay | FrameDelay | FrameDamage
    | ConnectionBreak | Savepoint | StopAndResume | CancelAndResume
)  # fmt: skip
"""What happens to a run; what a client does counts, since it comes as untimely as a crash."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """How many faults of each kind a run has at most; which ones is drawn from its seed.

    Example:
        >>> Faults(storage_failures=0).draw(7, slot_count=2) == Faults(storage_failures=0).draw(7, slot_count=2)
        True
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
        rng = random.Random(f"faults/{seed}")
        kinds: list[tuple[int, Callable[[random.Random, int], Fault]]] = [
            (self.crashes - 1, _draw_crash),
            (self.kills, _draw_kill),
            (self.pauses, _draw_pause),
            (self.storage_failures, _draw_storage_failure),
            (self.work_delays, _draw_work_delay),
            (self.frame_delays, _draw_frame_delay),
            (self.frame_damages, _draw_frame_damage),
            (self.connection_breaks, _draw_connection_break),
            (self.savepoints, _draw_savepoint),
            (self.stops, self._draw_stop),
            (self.cancels, self._draw_cancel),
        ]
        faults: list[Fault] = [_nth_crash(seed, rng, slot_count)] if self.crashes else []
        for most, draw in kinds:
            faults += [draw(rng, slot_count) for _ in range(rng.randint(0, max(most, 0)))]
        return tuple(faults)

    def _draw_stop(self, rng: random.Random, slot_count: int) -> Fault:
        return StopAndResume(at_ms=_any_time(rng), parallelism=rng.randint(1, self.parallelism_max))

    def _draw_cancel(self, rng: random.Random, slot_count: int) -> Fault:
        return CancelAndResume(at_ms=_any_time(rng), parallelism=rng.randint(1, self.parallelism_max))


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


def _nth_crash(seed: int, rng: random.Random, slot_count: int) -> Fault:
    phases = list(CheckpointPhase)
    return SlotCrash(
        checkpoint_id=CHECKPOINTS[seed // len(phases) % len(CHECKPOINTS)],
        phase=phases[seed % len(phases)],
        slot=_any_slot(rng, slot_count),
    )


def _draw_crash(rng: random.Random, slot_count: int) -> Fault:
    return SlotCrash(
        checkpoint_id=rng.choice(CHECKPOINTS),
        phase=rng.choice(list(CheckpointPhase)),
        slot=_any_slot(rng, slot_count),
        moment=rng.choice((0, 0, 1, 2, 3)),
    )


def _any_slot(rng: random.Random, slot_count: int) -> int | None:
    return rng.choice([None, *range(slot_count)])


def _any_time(rng: random.Random) -> float:
    return round(rng.uniform(0, START_MS), 3)


def _draw_kill(rng: random.Random, slot_count: int) -> Fault:
    return SlotKill(at_ms=_any_time(rng), slot=rng.randrange(slot_count))


def _draw_pause(rng: random.Random, slot_count: int) -> Fault:
    return SlotPause(
        at_ms=_any_time(rng),
        slot=rng.randrange(slot_count),
        duration_ms=round(rng.uniform(1, 200), 3),
    )


def _draw_storage_failure(rng: random.Random, slot_count: int) -> Fault:
    return StorageFailure(
        call=rng.randrange(120), count=rng.choice((1, 1, 1, 2, 5)), effective=rng.random() < 0.5
    )


def _draw_work_delay(rng: random.Random, slot_count: int) -> Fault:
    return WorkDelay(work=rng.randrange(80), delay_ms=round(rng.uniform(10, 800), 3))


def _draw_frame_delay(rng: random.Random, slot_count: int) -> Fault:
    return FrameDelay(frame=rng.randrange(200), delay_ms=round(rng.uniform(5, 300), 3))


def _draw_frame_damage(rng: random.Random, slot_count: int) -> Fault:
    return FrameDamage(frame=rng.randrange(200), damage=rng.choice(list(Damage)))


def _draw_connection_break(rng: random.Random, slot_count: int) -> Fault:
    return ConnectionBreak(frame=rng.randrange(200))


def _draw_savepoint(rng: random.Random, slot_count: int) -> Fault:
    return Savepoint(at_ms=_any_time(rng))
