"""Draws what goes wrong in a simulated run from its seed."""

import random
from collections.abc import Callable
from dataclasses import dataclass, fields

from raystream.storage.layout import METADATA_NAME
from raystream.testing.faults import (
    CancelAndResume,
    CheckpointPhase,
    ClockJump,
    ConnectionBreak,
    CrashAtCall,
    Damage,
    Fault,
    FrameDamage,
    FrameDelay,
    MasterCrash,
    MasterKill,
    MasterPause,
    MasterPresumedDead,
    Rescale,
    RestartCrash,
    Savepoint,
    SlotCrash,
    SlotKill,
    SlotPause,
    SlotPresumedDead,
    SlowConnections,
    SlowSlot,
    StopAndResume,
    StorageFailure,
    WorkDelay,
)

CHECKPOINTS = (1, 2, 3)
"""Checkpoints in which slots crash."""

START_MS = 300.0
"""Faults that come at a time come before this one, while most jobs still run."""

JUMP_MS_MAX = 3_600_000.0


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
    master_crashes: int = 1
    """Job masters that die in a phase of a checkpoint; none where the job log is in the memory of one."""
    master_kills: int = 1
    master_pauses: int = 1
    masters_presumed_dead: int = 1
    crashes_at_calls: int = 1
    restart_crashes: int = 1
    kills: int = 1
    pauses: int = 1
    presumed_dead: int = 1
    slow_slots: int = 1
    storage_failures: int = 2
    work_delays: int = 2
    frame_delays: int = 2
    frame_damages: int = 1
    connection_breaks: int = 1
    slow_connections: int = 1
    clock_jumps: int = 1
    savepoints: int = 1
    stops: int = 1
    cancels: int = 1
    rescales: int = 1
    parallelism_max: int = 3
    """Highest parallelism after a stop, cancel or rescale."""

    def draw(self, seed: int, *, slot_count: int) -> tuple[Fault, ...]:
        """Return the faults of one run."""
        draw = _Draw(random.Random(f"faults/{seed}"), slot_count, self.parallelism_max)
        kinds: list[tuple[int, Callable[[], Fault]]] = [
            (self.crashes - 1, draw.crash),
            (self.master_crashes, draw.master_crash),
            (self.master_kills, draw.master_kill),
            (self.master_pauses, draw.master_pause),
            (self.masters_presumed_dead, draw.master_presumed_dead),
            (self.crashes_at_calls, draw.crash_at_call),
            (self.restart_crashes, draw.restart_crash),
            (self.kills, draw.kill),
            (self.pauses, draw.pause),
            (self.presumed_dead, draw.presumed_dead),
            (self.slow_slots, draw.slow_slot),
            (self.storage_failures, draw.storage_failure),
            (self.work_delays, draw.work_delay),
            (self.frame_delays, draw.frame_delay),
            (self.frame_damages, draw.frame_damage),
            (self.connection_breaks, draw.connection_break),
            (self.slow_connections, draw.slow_connections),
            (self.clock_jumps, draw.clock_jump),
            (self.savepoints, draw.savepoint),
            (self.stops, draw.stop),
            (self.cancels, draw.cancel),
            (self.rescales, draw.rescale),
        ]
        faults: list[Fault] = [draw.nth_crash(seed)] if self.crashes else []
        for most, one in kinds:
            faults += [one() for _ in range(draw.rng.randint(0, max(most, 0)))]
        return tuple(faults)


NO_FAULTS = Faults(**{field.name: 0 for field in fields(Faults) if field.name != "parallelism_max"})


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

    def master_crash(self) -> Fault:
        rng = self.rng
        return MasterCrash(
            checkpoint_id=rng.choice(CHECKPOINTS),
            phase=rng.choice(list(CheckpointPhase)),
            moment=rng.choice((0, 0, 1, 2)),
        )

    def master_kill(self) -> Fault:
        return MasterKill(at_ms=self._time_ms())

    def master_pause(self) -> Fault:
        return MasterPause(at_ms=self._time_ms(), duration_ms=self._ms(1, 200))

    def master_presumed_dead(self) -> Fault:
        return MasterPresumedDead(at_ms=self._time_ms(), duration_ms=self._ms(20, 600))

    def crash_at_call(self) -> Fault:
        return CrashAtCall(call=self.rng.randrange(100), effective=self.rng.random() < 0.5)

    def restart_crash(self) -> Fault:
        rng = self.rng
        return RestartCrash(
            attempt=rng.choice((1, 2, 2, 3)),
            moment=rng.randrange(4 * self._slot_count),
            slot=self._slot_or_none(),
        )

    def presumed_dead(self) -> Fault:
        return SlotPresumedDead(at_ms=self._time_ms(), slot=self._slot(), duration_ms=self._ms(20, 900))

    def slow_slot(self) -> Fault:
        return SlowSlot(
            at_ms=self._time_ms(), slot=self._slot(), duration_ms=self._ms(20, 300), step_ms=self._ms(0.5, 10)
        )

    def slow_connections(self) -> Fault:
        return SlowConnections(at_ms=self._time_ms(), duration_ms=self._ms(20, 200), delay_ms=self._ms(1, 40))

    def clock_jump(self) -> Fault:
        far = self.rng.random() < 0.5  # Near enough to be mistaken for time that has passed, or not.
        by_ms = self._ms(-JUMP_MS_MAX, JUMP_MS_MAX) if far else self._ms(-100, 100)
        return ClockJump(at_ms=self._time_ms(), by_ms=by_ms, slot=self._slot_or_none())

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

    def rescale(self) -> Fault:
        return Rescale(at_ms=self._time_ms(), parallelism=self._parallelism())

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
