"""Time to live: when a stored value expires, and who may still see it.

A value written at `w` is expired at `now` if and only if `w + ttl <= now`.  In a state with a time to
live every value is stored as a pair `(written_ms, value)`: the value of a key, each element of a list,
each value of a map.  States without one store no time and pay nothing.

Which time that is, the declaration says: the wall clock of the slot, or the watermark
(`raystream.state.event_clock`).

How the pairs become values again is in `raystream.state.ttl_states`, for every backend.
"""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, Protocol

from raystream.clock import TimeDomain
from raystream.config.units import parse_duration_ms
from raystream.errors import StateError
from raystream.records.elements import WATERMARK_MAX_MS, WATERMARK_MIN_MS


class TtlUpdate(StrEnum):
    """What gives a value its time to live anew."""

    ON_CREATE_AND_WRITE = "on-create-and-write"
    ON_READ_AND_WRITE = "on-read-and-write"


class TtlVisibility(StrEnum):
    """Who sees an expired value."""

    NEVER_RETURN_EXPIRED = "never-return-expired"
    RETURN_EXPIRED_IF_NOT_CLEANED_UP = "return-expired-if-not-cleaned-up"
    """The first read after it has expired, unless a clean-up came before; that read removes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TtlCleanup:
    """How expired values that nobody reads are removed.

    Every read removes what it finds expired, and a full snapshot leaves expired values out; an
    incremental checkpoint, which consists of files, has them still.  Beside that, each access looks at
    some other keys of the state, and on RocksDB each batch of the operator does, whatever it accesses.
    """

    entries_per_access: int = 5
    """Keys looked at per access; 0 turns that off, and leaves what batches and snapshots remove."""

    def __post_init__(self) -> None:
        if type(self.entries_per_access) is not int or self.entries_per_access < 0:
            raise StateError(
                "number of keys to clean up per access is not a whole number from 0",
                entries_per_access=self.entries_per_access,
            )


@dataclass(frozen=True, slots=True)
class StateTtl:
    """How long the values of a state live after they were written.

    Lists and maps expire by element and entry.  A time to live may be given to, changed on or taken
    from a state that exists: values without a time, or with one of the other domain, count from the
    restore.

    In event time a value is written at the timestamp of its record, or at the watermark if that is
    later, and expires when the watermark has come so far; while a timer of event time fires, its time
    stands for the watermark.  Before the first watermark nothing expires.

    Args:
        ttl: text such as `30s`, `1h` or `7d`, a `timedelta`, or milliseconds; more than 0.
        update: whether reads renew it too.
        visibility: whether an expired value may be returned once.
        cleanup: how much each access cleans up.
        time: whether it is processing time or event time.

    Raises:
        StateError: an argument is none of these.

    Example:
        >>> StateTtl("1.5 h").ttl_ms
        5400000
    """

    ttl: str | int | timedelta
    update: TtlUpdate = TtlUpdate.ON_CREATE_AND_WRITE
    visibility: TtlVisibility = TtlVisibility.NEVER_RETURN_EXPIRED
    cleanup: TtlCleanup = TtlCleanup()
    time: TimeDomain = TimeDomain.PROCESSING_TIME

    def __post_init__(self) -> None:
        try:
            ttl_ms = parse_duration_ms(self.ttl)
            update, visibility = TtlUpdate(self.update), TtlVisibility(self.visibility)
            time = TimeDomain(self.time)
        except ValueError as error:
            raise StateError("time to live of a state cannot be read", cause=str(error)) from error
        if ttl_ms == 0:
            raise StateError("time to live of a state is not above 0", ttl=self.ttl)
        object.__setattr__(self, "ttl", ttl_ms)  # So that "1s" and 1000 are equal.
        object.__setattr__(self, "update", update)
        object.__setattr__(self, "visibility", visibility)
        object.__setattr__(self, "time", time)

    @property
    def ttl_ms(self) -> int:
        """The time to live in milliseconds."""
        assert isinstance(self.ttl, int)
        return self.ttl


class StateClock(Protocol):
    """The time that a state goes by."""

    def now_ms(self) -> int:
        """Return the time by which it is judged what has expired."""

    def written_ms(self) -> int:
        """Return the time of writing that state which is written now gets."""


class Expiry:
    """Decides for one state, at the present time, which of its values have expired.

    Attributes:
        now_ms: returns the time by which it is judged; nothing is written at an older one from now on.
        written_ms: returns the time that a value written now gets.
    """

    __slots__ = ("_ttl_ms", "now_ms", "written_ms")

    def __init__(self, ttl: StateTtl, clock: StateClock) -> None:
        self._ttl_ms = ttl.ttl_ms
        self.now_ms = clock.now_ms
        self.written_ms = clock.written_ms

    def cutoff_ms(self) -> int:
        """Return the newest time of writing that has expired: a pair is when `pair[0] <= cutoff_ms`."""
        return self.now_ms() - self._ttl_ms


class RestoredExpiry(Expiry):
    """Of a state that was restored with values that had expired, and whose time to live is longer now.

    Args:
        ttl: as declared.
        clock: tells the time.
        expired_ms: newest time of writing that had expired already; below every time of writing from now on.
    """

    __slots__ = ("_expired_ms",)

    def __init__(self, ttl: StateTtl, clock: StateClock, expired_ms: int) -> None:
        super().__init__(ttl, clock)
        self._expired_ms = expired_ms

    def cutoff_ms(self) -> int:
        return max(self._expired_ms, super().cutoff_ms())


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """The time of a snapshot.

    Attributes:
        processing_ms: wall time.
        event_ms: event time, as it was at the barrier.
    """

    processing_ms: int = 0
    event_ms: int = WATERMARK_MIN_MS

    @property
    def watermark_ms(self) -> int | None:
        """Where event time goes on; None when it has not begun, and when it is over."""
        return self.event_ms if WATERMARK_MIN_MS < self.event_ms < WATERMARK_MAX_MS else None

    def cutoff_ms(self, ttl: StateTtl | None) -> int | None:
        """Return the newest time of writing that had expired; None without a time to live."""
        if ttl is None:
            return None
        now_ms = self.event_ms if ttl.time is TimeDomain.EVENT_TIME else self.processing_ms
        return now_ms - ttl.ttl_ms


def latest_cutoff_ms(cutoff_ms: int | None, expired_ms: int | None) -> int | None:
    """Return the newest time of writing that has expired; None without a time to live.

    Args:
        cutoff_ms: as the time to live has it; None without one.
        expired_ms: of what had expired before the time to live became longer; None for nothing.
    """
    return cutoff_ms if cutoff_ms is None or expired_ms is None else max(cutoff_ms, expired_ms)


_NEVER_MS = 2 * WATERMARK_MIN_MS
"""Older than anything that can have expired, also in event time."""


class SweepRounds:
    """Tells a clean-up that goes round all values of a state when a round can find anything.

    After a round nothing is left that is older than the oldest value that it has seen, but for what was
    written while it went on: the next round waits until the older of the two can have expired.
    """

    __slots__ = ("_expiry", "_oldest_ms", "_waits_for_ms")

    def __init__(self, expiry: Expiry) -> None:
        self._expiry = expiry
        self._waits_for_ms = self._oldest_ms = _NEVER_MS

    @property
    def due(self) -> bool:
        """True in a round, and when the next one may find something."""
        return self._expiry.cutoff_ms() >= self._waits_for_ms

    def begun(self) -> None:
        """A round has begun."""
        self._waits_for_ms = _NEVER_MS
        self._oldest_ms = self._expiry.now_ms()

    def seen(self, written_ms: int) -> None:
        """A value of this time of writing, or none that is older, has not expired."""
        self._oldest_ms = min(self._oldest_ms, written_ms)

    def ended(self) -> None:
        """Everything was looked at."""
        self._waits_for_ms = self._oldest_ms


def unexpired(content: Any, cutoff_ms: int) -> Any:
    """Return a content in pairs without what has expired; None when nothing is left.

    Args:
        content: pair, list of pairs, or dict with pairs as values.
        cutoff_ms: newest time of writing that has expired.

    Returns:
        The content itself when nothing of it has expired, else a new one.
    """
    if type(content) is tuple:
        return None if content[0] <= cutoff_ms else content
    if type(content) is list:
        left: Any = [pair for pair in content if pair[0] > cutoff_ms]
    else:
        left = {key: pair for key, pair in content.items() if pair[0] > cutoff_ms}
    return (content if len(left) == len(content) else left) or None
