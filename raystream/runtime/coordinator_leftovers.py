"""What is left in the directory of a job, and is swept: by attempts that ended, and by failed deletions.

    given up --> swept on every completion --> all slots say that they write nothing so old any more
      ^                                          --> swept once more, with success --> nothing to do
      +------------------------------------------------------------------------------------+

A slot is told to drop what it writes for a checkpoint that was given up, and cleans up behind itself; but a
file may come after the directory was deleted, or stay when the store refuses.  What could not be deleted of
any other checkpoint counts as given up too.  To sweep lists the directory of the job, so that it ends when it
has nothing more to find.  (What outlives its slot goes with the sweep of the next attempt, or of the job's
end.)
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from raystream.handles import SubtaskSnapshot
from raystream.ids import CheckpointId
from raystream.protocol.shared_files import SharedFiles
from raystream.runtime.coordinator_end import Deletions
from raystream.storage.snapshots import SnapshotStore


class Leftovers:
    """Deletes checkpoints, and sweeps what stays of them.

    Args:
        deletions: run the deletions and sweeps.
        snapshots: of the job.
        shared: the shared files that complete checkpoints need.
    """

    def __init__(self, deletions: Deletions, snapshots: SnapshotStore, shared: SharedFiles) -> None:
        self._deletions = deletions
        self._snapshots = snapshots
        self._shared = shared
        self._newest: CheckpointId | None = None  # That was given up and may have left something.
        self._times = 0  # Something was given up.
        self._elsewhere: list[tuple[CheckpointId, Callable[[], object]]] = []  # Deletions to be repeated.
        self._over_to = CheckpointId(0)  # No slot writes for this one or an older one that was given up.

    def given_up(self, checkpoint_id: CheckpointId) -> None:
        """A checkpoint will never complete, or files of it were not deleted."""
        self._newest = max(checkpoint_id, self._newest or checkpoint_id)
        self._times += 1

    def delete(self, checkpoint_id: CheckpointId, work: Callable[[], object]) -> None:
        """Delete files of a checkpoint, or leave them to the next sweep."""
        self._deletions.submit(
            work,
            failed="files of a checkpoint stay, until the next sweep",
            undone=partial(self.given_up, checkpoint_id),
        )

    def delete_elsewhere(self, checkpoint_id: CheckpointId, work: Callable[[], object]) -> None:
        """Delete a snapshot that no sweep finds, such as one that was claimed: again with every sweep."""

        def undone() -> None:
            self._elsewhere.append((checkpoint_id, work))
            self.given_up(checkpoint_id)

        failed = "snapshot that was claimed stays, until the next sweep"
        self._deletions.submit(work, failed=failed, undone=undone)

    def acknowledged(self, snapshots: Iterable[SubtaskSnapshot]) -> None:
        """All subtasks have acknowledged a checkpoint."""
        writing = [snapshot.writing_from for snapshot in snapshots if snapshot.writing_from is not None]
        if self._newest is not None and (not writing or min(writing) > self._newest):
            self._over_to = self._newest

    def sweep(self, keep: Sequence[CheckpointId]) -> None:
        """Remove what may be left, below the complete checkpoints that are kept."""
        newest, times = self._newest, self._times
        if newest is None:
            return
        older = CheckpointId(min(keep) - 1)  # Whatever is pending is newer.
        last = self._over_to >= newest and older >= newest

        def swept() -> None:
            if last and self._times == times:
                self._newest = None

        self._submit(
            keep,
            older,
            writing=True,
            failed="files of checkpoints that were given up stay, until the next sweep",
            done=swept,
        )

    def sweep_older_attempts(self, keep: Sequence[CheckpointId], newest: CheckpointId) -> None:
        """Remove what earlier attempts have left, up to their newest checkpoint, while another one runs."""
        self._submit(
            keep,
            newest,
            writing=True,
            failed="files of older attempts stay, until the next sweep",
            undone=partial(self.given_up, newest),
        )

    def sweep_all(self, keep: Sequence[CheckpointId], newest: CheckpointId) -> None:
        """Remove everything but what is kept: the job has ended, and so has every slot."""
        self._submit(keep, newest, writing=False, failed="files of the job stay")

    def _submit(
        self,
        keep: Sequence[CheckpointId],
        newest: CheckpointId,
        *,
        writing: bool,
        failed: str,
        done: Callable[[], None] = lambda: None,
        undone: Callable[[], None] = lambda: None,
    ) -> None:
        repeated, self._elsewhere = self._elsewhere, []
        for deletion in repeated:
            self.delete_elsewhere(*deletion)
        shared = self._shared.needed(keep)
        work = partial(self._snapshots.sweep, keep, newest=newest, shared=shared, writing=writing)
        self._deletions.submit(work, failed=failed, done=done, undone=undone)
