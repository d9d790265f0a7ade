"""What slots have still written for checkpoints that were given up, and deleted by then.

    given up --> swept on every completion --> all slots say that they write nothing so old any more
      ^                                          --> swept once more, with success --> nothing to do
      +------------------------------------------------------------------------------------+

A slot is told to drop what it writes for such a checkpoint, and cleans up behind itself; but a file may
come after the directory was deleted, or stay when the store refuses.  To sweep lists the directory of the
job, so that it ends when it has nothing more to find.  (What outlives its slot goes with the sweep of the
next attempt, or of the job's end.)
"""

from collections.abc import Iterable, Sequence
from functools import partial

from raystream.handles import SubtaskSnapshot
from raystream.ids import CheckpointId
from raystream.protocol.shared_files import SharedFiles
from raystream.runtime.coordinator_end import Deletions
from raystream.storage.snapshots import SnapshotStore


class LateUploads:
    """Sweeps them while an attempt runs.

    Args:
        deletions: run the sweeps.
        snapshots: of the job.
        shared: the shared files that complete checkpoints need.
    """

    def __init__(self, deletions: Deletions, snapshots: SnapshotStore, shared: SharedFiles) -> None:
        self._deletions = deletions
        self._snapshots = snapshots
        self._shared = shared
        self._newest: CheckpointId | None = None  # That was given up and may have left something.
        self._over_to = CheckpointId(0)  # No slot writes for this one or an older one that was given up.

    def given_up(self, checkpoint_id: CheckpointId) -> None:
        """A checkpoint will never complete."""
        self._newest = max(checkpoint_id, self._newest or checkpoint_id)

    def acknowledged(self, snapshots: Iterable[SubtaskSnapshot]) -> None:
        """All subtasks have acknowledged a checkpoint."""
        writing = [snapshot.writing_from for snapshot in snapshots if snapshot.writing_from is not None]
        if self._newest is not None and (not writing or min(writing) > self._newest):
            self._over_to = self._newest

    def sweep(self, keep: Sequence[CheckpointId]) -> None:
        """Remove what may be left, below the complete checkpoints that are kept."""
        newest = self._newest
        if newest is None:
            return
        older = CheckpointId(min(keep) - 1)  # Whatever is pending is newer.
        last = self._over_to >= newest and older >= newest

        def swept() -> None:
            if last and self._newest == newest:
                self._newest = None

        self._deletions.submit(
            partial(self._snapshots.sweep, keep, newest=older, shared=self._shared.live, writing=True),
            failed="files of checkpoints that were given up stay, until the next sweep",
            done=swept,
        )
