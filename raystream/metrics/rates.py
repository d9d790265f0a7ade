"""Rates from totals that grow: what came in the last seconds, per second."""

from collections import deque
from collections.abc import Sequence

WINDOW_MS = 5_000.0
"""Rates are averages over about this time: long enough to be steady, short enough to be watched."""
SAMPLES_MAX = 64


class RateWindow:
    """Follows some totals together.

    Args:
        now_ms: monotonic time at which all totals are 0.
        count: how many totals there are.
    """

    def __init__(self, now_ms: float, count: int) -> None:
        self._samples: deque[tuple[float, Sequence[float]]] = deque(
            [(now_ms, (0.0,) * count)], maxlen=SAMPLES_MAX
        )

    def sample(self, now_ms: float, totals: Sequence[float]) -> tuple[float, ...]:
        """Take the totals of this moment and return how much each has grown, per second.

        Example:
            >>> window = RateWindow(0.0, count=2)
            >>> window.sample(1_000.0, (100, 7))
            (100.0, 7.0)
            >>> window.sample(10_000.0, (1_000, 7)), window.sample(15_000.0, (2_000, 12))
            ((100.0, 0.0), (200.0, 1.0))
        """
        samples = self._samples
        samples.append((now_ms, totals))
        while len(samples) > 2 and now_ms - samples[1][0] >= WINDOW_MS:
            samples.popleft()
        before_ms, before = samples[0]
        seconds = (now_ms - before_ms) / 1000.0
        if seconds <= 0:
            return (0.0,) * len(totals)
        return tuple((new - old) / seconds for new, old in zip(totals, before, strict=True))
