"""Two-phase commit of one sink subtask: which committables are due when.

    written -> prepared by snapshot n -> due when a checkpoint >= n is complete -> committed

The machine knows ids and opaque committables, no files and no time.  One commit is under
way at a time, in checkpoint order; what fails is due again, so a commit must be
idempotent.  Source: the rules of Flink's TwoPhaseCommitSinkFunction.
"""

from collections import deque
from collections.abc import Sequence

from raystream.errors import ProtocolError


class PendingCommits:
    """The committables that were prepared and are not yet committed.

    Invariant: `_waiting` is ordered by checkpoint id, and everything in `_under_way` is older
    than everything in `_waiting`.
    """

    def __init__(self, restored: Sequence[bytes] = ()) -> None:
        self._waiting: deque[tuple[int, tuple[bytes, ...]]] = deque()
        self._under_way: tuple[bytes, ...] = ()
        self._complete_id = 0
        if restored:
            self._waiting.append((0, tuple(restored)))  # Due at once: 0 is older than every checkpoint.

    def prepared(self, checkpoint_id: int, committables: Sequence[bytes]) -> None:
        """Take in what was pre-committed at a barrier.

        Raises:
            ProtocolError: the id is not newer than the last one.
        """
        if self._waiting and self._waiting[-1][0] >= checkpoint_id:
            raise ProtocolError(
                "barriers out of order", checkpoint_id=checkpoint_id, last=self._waiting[-1][0]
            )
        if committables:
            self._waiting.append((checkpoint_id, tuple(committables)))

    def ended(self, committables: Sequence[bytes]) -> None:
        """Take in what was pre-committed at the end of all input, with no checkpoint: everything is due.

        Savepoints may have prepared something before, and commit nothing themselves.
        """
        if committables:
            last_id = self._waiting[-1][0] if self._waiting else self._complete_id
            self._waiting.append((last_id, tuple(committables)))
        if self._waiting:
            self._complete_id = max(self._complete_id, self._waiting[-1][0])

    def checkpoint_completed(self, checkpoint_id: int) -> None:
        """Everything prepared for this checkpoint or an older one is now due."""
        self._complete_id = max(self._complete_id, checkpoint_id)

    def begin(self) -> tuple[bytes, ...]:
        """Return what to commit now, or nothing when a commit is under way or nothing is due."""
        if self._under_way:
            return ()
        due: list[bytes] = []
        while self._waiting and self._waiting[0][0] <= self._complete_id:
            due.extend(self._waiting.popleft()[1])
        self._under_way = tuple(due)
        return self._under_way

    def committed(self) -> None:
        """The commit under way has succeeded.

        Raises:
            ProtocolError: none is under way.
        """
        if not self._under_way:
            raise ProtocolError("no commit is under way")
        self._under_way = ()

    def state(self) -> list[bytes]:
        """Return every committable that is not committed for certain, oldest first."""
        return [*self._under_way, *(c for _, committables in self._waiting for c in committables)]

    @property
    def idle(self) -> bool:
        """True when no commit is under way and none is due."""
        return not self._under_way and not (self._waiting and self._waiting[0][0] <= self._complete_id)
