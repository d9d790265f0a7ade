"""The ids of a job's checkpoints: from 1, growing, and never given twice.

A job master that was paused and replaced does not know it, and goes on to give ids until its next
log entry fails.  Directories of checkpoints are named by id, and deleted by name; so no successor may
ever give an id that such a master may still use.  Therefore nobody gives more than `IDS_AHEAD_MAX`
ids above the newest one in the job log, and a successor begins above those.  When half of them are
used up without a completed checkpoint, an entry of its own names the newest one.

Knows ids; knows nothing of how a checkpoint ends.
"""

from raystream.ids import CheckpointId

IDS_AHEAD_MAX = 1_000
"""Ids that may be given without a log entry that names one of them."""


class CheckpointIds:
    """Counts the checkpoints of one job in one job master."""

    def __init__(self) -> None:
        self._last = CheckpointId(0)
        self._logged = CheckpointId(0)
        self._claiming = False

    @property
    def last(self) -> CheckpointId:
        """The newest id; 0 before the first."""
        return self._last

    @property
    def exhausted(self) -> bool:
        """True when no id may be given before the log has another one."""
        return self._last >= self._logged + IDS_AHEAD_MAX

    @property
    def claim_due(self) -> bool:
        """True when the log should name the newest id, so that there will be more."""
        return not self._claiming and self._last >= self._logged + IDS_AHEAD_MAX // 2

    def claim(self) -> CheckpointId:
        """Return the id that the log shall name; answered by `claimed`."""
        self._claiming = True
        return self._last

    def claimed(self, checkpoint_id: CheckpointId | None) -> None:
        """The log names the id; None when that failed."""
        self._claiming = False
        if checkpoint_id is not None:
            self.logged(checkpoint_id)

    def begin_above(self, checkpoint_id: CheckpointId) -> None:
        """Go on above an id that somebody else has given, or may have; before the first of our own."""
        assert not self._last, "ids were given before"
        self._last = self._logged = checkpoint_id

    def logged(self, checkpoint_id: CheckpointId) -> None:
        """The job log has an entry that names this id."""
        self._logged = max(self._logged, checkpoint_id)

    def give(self) -> CheckpointId:
        """Return the next id."""
        assert not self.exhausted, "id without a claim to it"
        self._last = CheckpointId(self._last + 1)
        return self._last
