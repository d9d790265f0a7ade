"""Event time of one source subtask, from the records of the splits that it reads: the state machine.

    split added ──▶ HOLDS BACK ──silent for the idle time-out──▶ IDLE
                      ▲   │ ▲                                     │
                      │   │ └───────────── a record ──────────────┘
                      │   ▼
                    a record: its watermark grows          ended: forgotten, but for its watermark

The watermark of the subtask is the minimum over its splits that hold it back, also those of which
nothing has come yet: what a slow split has still to give is not late.  A subtask without splits is
held back as by one of which nothing has come, since the next one may begin anywhere.  When every
split is idle nobody waits for the subtask, and its event time goes on to the highest watermark of
all, also of splits that have ended: what it would have been had they fallen silent in another order.

A split that comes back, or is new, behind the watermark that was reached holds it until it has caught
up: its records until then are late, those after it are not.  (The channels of a
`raystream.protocol.watermark.WatermarkValve` do not wait for such a one: it may never catch up, while
a subtask reads all its splits.)

A stream that is not cut into splits is one split.

Source: Flink `WatermarkOutputMultiplexer` and `WatermarksWithIdleness`.
"""

from collections.abc import Collection, Hashable
from dataclasses import dataclass

from raystream.protocol.history import History
from raystream.protocol.watermark import (
    BEGINNING_MS,
    Command,
    ForwardActive,
    ForwardIdle,
    ForwardWatermark,
)

WHOLE = None
"""The split of a stream that is not cut into splits, and of a subtask that has none."""


@dataclass(slots=True)
class _Split:
    watermark_ms: int = BEGINNING_MS
    silent: bool = True
    """No record since the last tick."""
    silent_ms: int = 0


class SplitWatermarks:
    """Decides about the event time of one source subtask, at every tick.

    Invariant: the watermarks that it forwards grow, and idle and active are forwarded in turn.

    Args:
        tick_ms: time that a tick stands for.
        idleness_ms: time without a record after which a split is idle; None: it never is.
    """

    def __init__(self, *, tick_ms: int, idleness_ms: int | None) -> None:
        self._tick_ms = tick_ms
        self._idleness_ms = idleness_ms
        self._splits: dict[Hashable, _Split] = {WHOLE: _Split()}
        self._ended_ms = BEGINNING_MS
        self._forwarded_ms = BEGINNING_MS
        self._idle = False
        self._history: History[Command] = History()

    @property
    def idle(self) -> bool:
        """True when nobody waits for the subtask: a tick would change nothing."""
        return self._idle

    def records_read(self, split: Hashable, watermark_ms: int | None) -> list[Command]:
        """Handle records of a split, before they are emitted; called for every batch.

        Args:
            split: whose they are.
            watermark_ms: what they make it, when that is above what it has; None: they make none.
        """
        known = self._splits.get(split)
        if known is None:
            known = self._splits[split] = _Split()
        known.silent = False
        known.silent_ms = 0
        if watermark_ms is not None and watermark_ms > known.watermark_ms:
            known.watermark_ms = watermark_ms
        return self._history.done("records_read", (split, watermark_ms), self._wake()) if self._idle else []

    def idle_heard(self) -> list[Command]:
        """Handle that the source of the records says itself that it will be silent for a while."""
        commands: list[Command] = [] if self._idle else [ForwardIdle()]
        self._idle = True
        return self._history.done("idle_heard", None, commands)

    def active_heard(self) -> list[Command]:
        """Handle that it says that it is not."""
        for known in self._splits.values():
            known.silent_ms = 0
        return self._history.done("active_heard", None, self._wake())

    def ticked(self, splits: Collection[Hashable]) -> list[Command]:
        """Handle that a tick has passed.

        Args:
            splits: those that the subtask reads now; others have ended.
        """
        before, self._splits = self._splits, {}
        for split in splits or (WHOLE,):
            # One that is seen for the first time has not been silent for a whole tick.
            self._splits[split] = before.pop(split, _Split(silent=False))
        self._ended_ms = max([self._ended_ms, *(ended.watermark_ms for ended in before.values())])
        for known in self._splits.values():
            known.silent_ms = known.silent_ms + self._tick_ms if known.silent else 0
            known.silent = True
        return self._history.done("ticked", len(splits), self._pass_on())

    def knows(self, splits: Collection[Hashable]) -> bool:
        """Return whether so many splits were read at the last tick, too."""
        return len(splits or (WHOLE,)) == len(self._splits)

    def validate(self) -> None:
        """Assert every invariant."""
        assert self._forwarded_ms == BEGINNING_MS or self._forwarded_ms <= self._highest_ms()

    def _pass_on(self) -> list[Command]:
        holding = [
            known.watermark_ms
            for known in self._splits.values()
            if self._idleness_ms is None or known.silent_ms < self._idleness_ms
        ]
        commands = self._wake() if holding else []
        reached_ms = min(holding) if holding else self._highest_ms()
        if reached_ms > self._forwarded_ms:
            self._forwarded_ms = reached_ms
            commands.append(ForwardWatermark(reached_ms))
        if not holding and not self._idle:
            self._idle = True
            commands.append(ForwardIdle())
        return commands

    def _wake(self) -> list[Command]:
        if not self._idle:
            return []
        self._idle = False
        return [ForwardActive()]

    def _highest_ms(self) -> int:
        return max([self._ended_ms, *(known.watermark_ms for known in self._splits.values())])
