"""What user code counts and measures with: `ctx.metrics`.

A metric belongs to one subtask of one operator in one attempt: it begins at zero when the job starts
and again after every restart, like the metrics of raystream itself, and is no part of any snapshot.

Example:
    >>> metrics = MetricGroup()
    >>> late = metrics.counter("lateRecords")
    >>> sizes = metrics.histogram("size")
    >>> late.inc()
    >>> for size in (10, 30, 20):
    ...     sizes.update(size)
    >>> values = metrics.values(now_ms=0.0)
    >>> values["late_records"], values["size_count"], values["size_p50"]
    (1.0, 3.0, 20.0)
"""

import logging
import math
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from raystream.errors import ConfigError
from raystream.metrics.catalogue import snake_case
from raystream.metrics.rates import RateWindow

logger = logging.getLogger(__name__)

METRICS_MAX = 200
"""Metrics of one operator subtask: each is a time series of its own, kept by whatever collects them."""
NAME_CHARACTERS_MAX = 100
HISTOGRAM_VALUES_MAX = 1_000
"""Values that the quantiles of a histogram are over, the newest ones."""

_QUANTILES = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


class Counter:
    """A number that is counted up and down."""

    __slots__ = ("count",)

    suffixes = ("",)

    def __init__(self) -> None:
        self.count = 0

    def inc(self, n: int = 1) -> None:
        """Count up."""
        self.count += n

    def dec(self, n: int = 1) -> None:
        """Count down."""
        self.count -= n

    def sample(self, now_ms: float) -> Sequence[float]:
        """Return the count."""
        return (self.count,)


class Gauge:
    """A value that is set, or that a function returns when it is asked for, about once a second."""

    __slots__ = ("_read", "_value")

    suffixes = ("",)

    def __init__(self, read: Callable[[], float] | None) -> None:
        self._read = read
        self._value: float | None = None

    def set(self, value: float) -> None:
        """Set the value; a gauge that has a function takes none."""
        if self._read is not None:
            raise ConfigError("gauge has a function, whose result is its value")
        self._value = value

    def sample(self, now_ms: float) -> Sequence[float]:
        """Return the value; nothing before one was set."""
        value = self._value if self._read is None else self._read()
        return () if value is None else (value,)


class Meter:
    """Events, and how many of them come per second."""

    __slots__ = ("_window", "count")

    suffixes = ("_count", "_per_second")

    def __init__(self) -> None:
        self.count = 0
        self._window: RateWindow | None = None

    def mark_event(self, n: int = 1) -> None:
        """Take note of events."""
        self.count += n

    def sample(self, now_ms: float) -> Sequence[float]:
        """Return the count and the rate over the last seconds."""
        if self._window is None:
            self._window = RateWindow(now_ms, 1)
        return (self.count, *self._window.sample(now_ms, (self.count,)))


class Histogram:
    """How values are spread, over the newest `HISTOGRAM_VALUES_MAX` of them."""

    __slots__ = ("_add", "_values", "count")

    suffixes = ("_count", "_min", "_max", "_mean", *(f"_{name}" for name, _ in _QUANTILES))

    def __init__(self) -> None:
        self.count = 0
        self._values: deque[float] = deque(maxlen=HISTOGRAM_VALUES_MAX)
        self._add = self._values.append

    def update(self, value: float) -> None:
        """Add a value."""
        self.count += 1
        self._add(value)

    def sample(self, now_ms: float) -> Sequence[float]:
        """Return count, least, greatest and mean value and the quantiles; the count alone when it is 0."""
        values = sorted(self._values)
        if not values:
            return (0,)
        last = len(values) - 1
        ranks = [values[round(share * last)] for _, share in _QUANTILES]
        return (self.count, values[0], values[last], math.fsum(values) / len(values), *ranks)


class _UserMetric(Protocol):
    @property
    def suffixes(self) -> tuple[str, ...]:
        """What stands behind the metric's name, for each value."""

    def sample(self, now_ms: float) -> Sequence[float]:
        """Return the values of this moment, or the first few of them."""


M = TypeVar("M", bound=_UserMetric)


class MetricGroup:
    """The metrics of user code in one operator subtask; a name that is asked for again is the same metric."""

    def __init__(self) -> None:
        self._metrics: dict[str, _UserMetric] = {}
        self._exported: set[str] = set()
        self._silent: set[str] = set()  # Whose failure was logged.

    def counter(self, name: str) -> Counter:
        """Return the counter of this name; `inc` and `dec` change it.

        Raises:
            ConfigError: the name is taken by a metric of another kind, is no name, or there are too many.
        """
        return self._get(name, Counter, Counter)

    def gauge(self, name: str, read: Callable[[], float] | None = None) -> Gauge:
        """Return the gauge of this name; raises as `counter`.

        Args:
            name: of the metric.
            read: returns the value, on the thread of the function; without it the value is `set`.
        """
        return self._get(name, Gauge, lambda: Gauge(read))

    def meter(self, name: str) -> Meter:
        """Return the meter of this name; `mark_event` counts.  Raises as `counter`."""
        return self._get(name, Meter, Meter)

    def histogram(self, name: str) -> Histogram:
        """Return the histogram of this name; `update` adds a value.  Raises as `counter`."""
        return self._get(name, Histogram, Histogram)

    def values(self, now_ms: float) -> Mapping[str, float]:
        """Return every value of every metric: by its name in lower case, with what the value is behind it.

        A metric that does not give numbers has none; its first failure is logged, and nothing else fails.

        Args:
            now_ms: monotonic time.
        """
        values: dict[str, float] = {}
        for name, metric in self._metrics.items():
            try:
                sampled = [float(value) for value in metric.sample(now_ms)]
            except Exception as error:
                if name not in self._silent:
                    self._silent.add(name)
                    logger.warning("user metric has no value", extra={"metric": name}, exc_info=error)
                continue
            names = (snake_case(name) + suffix for suffix in metric.suffixes)
            values.update(zip(names, sampled, strict=False))
        return values

    def _get(self, name: str, kind: type[M], make: Callable[[], M]) -> M:
        known = self._metrics.get(name)
        if isinstance(known, kind):
            return known
        metric = make()
        exported = {snake_case(str(name)) + suffix for suffix in metric.suffixes}
        if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > NAME_CHARACTERS_MAX:
            raise ConfigError(
                "metric has no name that collectors take",
                hint="letters, digits and underscores, a letter first",
                name=_shown(name),
            )
        if exported & self._exported:
            raise ConfigError("name is taken by another metric of the operator", name=name)
        if len(self._metrics) >= METRICS_MAX:
            raise ConfigError(
                "operator has too many metrics",
                hint="a metric for each key or record is no metric; count them in state, or emit them",
                name=name,
                metrics_max=METRICS_MAX,
            )
        self._metrics[name] = metric
        self._exported |= exported
        return metric


def _shown(name: Any) -> str:
    return repr(name)[:NAME_CHARACTERS_MAX]
