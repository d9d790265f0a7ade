"""Which shared files the complete checkpoints of a job need: the state machine, without any I/O.

    verified (all subtasks have acknowledged) --> checkpoint_completed (logged) --> checkpoint_deleted
                                                         file: created by, last used by

A subtask refers to a file that is part of a checkpoint it knows to be complete, and has every other one
stored anew.  So a file lives from the checkpoint that created it to the last one that uses it: once the
oldest checkpoint that is left is newer than that, nobody will refer to it again.

Knows complete checkpoints only.  Files of others are told by their names, and swept.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from raystream.errors import CheckpointError
from raystream.handles import SharedFile
from raystream.ids import CheckpointId


@dataclass(slots=True)
class _Use:
    file: SharedFile
    last_used_by: CheckpointId


class SharedFiles:
    """The shared files of one job, by name."""

    def __init__(self) -> None:
        self._uses: dict[str, _Use] = {}
        self._checkpoints: set[CheckpointId] = set()

    @property
    def live(self) -> frozenset[str]:
        """Names of the files that some complete checkpoint needs."""
        return frozenset(self._uses)

    def verify(self, checkpoint_id: CheckpointId, files: Iterable[SharedFile]) -> None:
        """Check that a checkpoint can be completed with these files.

        Raises:
            CheckpointError: a file was not written for this checkpoint and is not part of an older one, or
                is another one than is known by its name.
        """
        for file in files:
            known = self._uses.get(file.name)
            if known is None and file.created_by != checkpoint_id:
                raise CheckpointError(
                    "checkpoint refers to a shared file that no complete checkpoint has",
                    checkpoint_id=checkpoint_id,
                    file=file.name,
                )
            if known is not None and known.file != file:
                raise CheckpointError(
                    "two shared files have one name", checkpoint_id=checkpoint_id, file=file.name
                )

    def checkpoint_completed(self, checkpoint_id: CheckpointId, files: Iterable[SharedFile]) -> None:
        """The log entry of a verified checkpoint exists."""
        self._checkpoints.add(checkpoint_id)
        for file in files:
            use = self._uses.setdefault(file.name, _Use(file, checkpoint_id))
            use.last_used_by = max(use.last_used_by, checkpoint_id)

    def checkpoint_deleted(self, checkpoint_id: CheckpointId) -> tuple[str, ...]:
        """A checkpoint is not needed any more; return the files to delete, after what refers to them.

        For one that was never complete nothing is returned: its files are swept.
        """
        self._checkpoints.discard(checkpoint_id)
        oldest = min(self._checkpoints, default=None)
        gone = tuple(name for name, use in self._uses.items() if oldest is None or use.last_used_by < oldest)
        for name in gone:
            del self._uses[name]
        return gone

    def validate(self) -> None:
        """Assert every invariant."""
        oldest = min(self._checkpoints, default=None)
        for use in self._uses.values():
            assert oldest is not None, "files outlive all checkpoints"
            assert use.file.created_by <= use.last_used_by, use
            assert use.last_used_by >= oldest, use
