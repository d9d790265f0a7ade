"""The commits of a slot, one attempt after the other.

    commit of an attempt --> held while one of an older attempt is under way --> in a thread --> done

A commit cannot be interrupted: what an attempt has begun goes on in its thread when the attempt is
given up, and its successor commits the same committables again.  A committer is promised one call at
a time for each subtask, so that the successor's commits wait here.

Knows threads and attempts; knows nothing of sinks.
"""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from raystream.clock import Clock
from raystream.errors import StorageError
from raystream.operators.operator import Background

OLDER_COMMITS_WAIT_MS = 60_000.0
"""Time that commits wait for those of older attempts before their attempt fails, so that it is seen."""


@dataclass(frozen=True, slots=True)
class _Commit:
    attempt: int
    work: Callable[[], Any]
    done: Callable[[Any], None]


class CommitOrder:
    """Runs the commits of all attempts of a slot; all methods on the slot's thread.

    Args:
        background: runs them; its `done` calls come on the slot's thread.
        clock: measures how long commits wait.
    """

    def __init__(self, background: Background, clock: Clock) -> None:
        self._background = background
        self._clock = clock
        self._under_way: Counter[int] = Counter()  # By attempt.
        self._held: deque[_Commit] = deque()  # All of the current attempt.
        self._held_until_ms = 0.0

    def submit(self, attempt: int, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Call `work` in a thread when no older attempt's is under way, then `done` with its outcome."""
        commit = _Commit(attempt, work, done)
        if not self._waits(commit):
            self._begin(commit)
            return
        if not self._held:
            self._held_until_ms = self._clock.monotonic_ms() + OLDER_COMMITS_WAIT_MS
        self._held.append(commit)

    def drop_held(self) -> None:
        """Forget what has not begun: its attempt is over."""
        self._held.clear()

    def next_deadline_ms(self) -> float | None:
        """Return when `check` has something to say; None when nothing is held."""
        return self._held_until_ms if self._held else None

    def check(self) -> None:
        """Do nothing unless commits wait for too long.

        Raises:
            StorageError: they do.
        """
        if self._held and self._clock.monotonic_ms() >= self._held_until_ms:
            raise StorageError(
                "commits of an earlier attempt do not end",
                hint="look whether the store that the sink writes to answers",
                attempts=sorted(self._under_way),
            )

    def _waits(self, commit: _Commit) -> bool:
        return any(older < commit.attempt for older in self._under_way)

    def _begin(self, commit: _Commit) -> None:
        self._under_way[commit.attempt] += 1
        self._background.submit(commit.work, partial(self._ended, commit.attempt, commit.done))

    def _ended(self, attempt: int, done: Callable[[Any], None], result: Any) -> None:
        self._under_way -= Counter([attempt])  # Keeps only what is above zero.
        while self._held and not self._waits(self._held[0]):
            self._begin(self._held.popleft())
        done(result)
