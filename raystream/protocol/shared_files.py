"""Which shared files the complete checkpoints of a job need: the state machine, without any I/O.

    verified (all subtasks have acknowledged) --> completed (logged) --> deleted
        |   uses its files                           uses its files
        +--> deleted (given up)

A subtask refers to a file that is part of a checkpoint it knows to be complete, unless a pending one between
has it stored anew, and has every other file stored anew.  So a file lives from the checkpoint that created it
to the last one that uses it, with no gap: once the oldest checkpoint that is left is newer than that, and no
verified one uses it, nobody will refer to it again.

Knows verified and complete checkpoints only.  Files of others are told by their names, and swept.
"""

from collections.abc import Collection, Iterable
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
        self._complete: set[CheckpointId] = set()
        self._verified: dict[CheckpointId, tuple[SharedFile, ...]] = {}  # Not complete yet.

    @property
    def live(self) -> frozenset[str]:
        """Names of the files that complete checkpoints, and verified ones beside their own, need."""
        return frozenset(self._uses)

    def needed(self, retained: Iterable[CheckpointId]) -> frozenset[str]:
        """Return what a sweep has to leave.

        Args:
            retained: the checkpoints that the job keeps; each must have been completed or restored here, else
                its files would be swept.
        """
        unknown = sorted(set(retained) - self._complete)
        assert not unknown, f"files of retained checkpoints are not known: {unknown}"
        return self.live

    def restored(self, checkpoint_id: CheckpointId, files: Iterable[SharedFile]) -> None:
        """The job begins with a complete checkpoint that it owns.

        Whoever recovers a job, or has it claim a snapshot, says so for each, oldest first, before anything is
        verified or swept.
        """
        assert not self._verified, "restored behind a checkpoint of this job"
        self._used(checkpoint_id, files)

    def verify(self, checkpoint_id: CheckpointId, files: Collection[SharedFile]) -> None:
        """Check that a checkpoint can be completed with these files, and keep them until it is or is deleted.

        Raises:
            CheckpointError: a file was not written for this checkpoint and is not part of an older one, or
                is another one than is known by its name.
        """
        new: dict[str, SharedFile] = {}
        for file in files:
            use = self._uses.get(file.name)
            if use is None and file.created_by != checkpoint_id:
                raise CheckpointError(
                    "checkpoint refers to a shared file that no complete checkpoint has",
                    checkpoint_id=checkpoint_id,
                    file=file.name,
                )
            known = new.setdefault(file.name, file) if use is None else use.file
            if known != file:
                raise CheckpointError(
                    "two shared files have one name", checkpoint_id=checkpoint_id, file=file.name
                )
        self._verified[checkpoint_id] = tuple(files)

    def checkpoint_completed(self, checkpoint_id: CheckpointId) -> None:
        """The log entry of a verified checkpoint exists."""
        files = self._verified.pop(checkpoint_id)
        for file in files:
            assert file.name in self._uses or file.created_by == checkpoint_id, f"{file.name} is gone"
        self._used(checkpoint_id, files)

    def checkpoint_deleted(self, checkpoint_id: CheckpointId) -> tuple[str, ...]:
        """A checkpoint is given up or not needed any more; return the files to delete, after what needs them.

        What was written for one that was never complete is not among them: it is swept.
        """
        self._complete.discard(checkpoint_id)
        self._verified.pop(checkpoint_id, None)
        oldest = min(self._complete, default=None)
        kept = {file.name for files in self._verified.values() for file in files}
        gone = tuple(
            name
            for name, use in self._uses.items()
            if name not in kept and (oldest is None or use.last_used_by < oldest)
        )
        for name in gone:
            del self._uses[name]
        return gone

    def _used(self, checkpoint_id: CheckpointId, files: Iterable[SharedFile]) -> None:
        self._complete.add(checkpoint_id)
        for file in files:
            use = self._uses.setdefault(file.name, _Use(file, checkpoint_id))
            use.last_used_by = max(use.last_used_by, checkpoint_id)

    def validate(self) -> None:
        """Assert every invariant."""
        oldest = min(self._complete, default=None)
        kept = {file.name for files in self._verified.values() for file in files}
        assert not self._complete & self._verified.keys(), "a checkpoint is verified and complete"
        for checkpoint_id, files in self._verified.items():
            for file in files:
                assert file.name in self._uses or file.created_by == checkpoint_id, f"{file.name} is gone"
        for name, use in self._uses.items():
            assert use.file.created_by <= use.last_used_by, use
            if name not in kept:
                assert oldest is not None, "files outlive all checkpoints"
                assert use.last_used_by >= oldest, use
