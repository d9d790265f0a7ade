"""The committer of `FileSink`: gives each committable to the committer of the store that it is in.

A job that is restored with another output directory still commits what the earlier one has pre-committed,
where it was written, so that both kinds may come together.
"""

from collections.abc import Sequence
from functools import partial

from raystream.connectors.file_sink import PartFileCommitter
from raystream.connectors.part_names import UPLOAD_FORMAT_VERSION
from raystream.operators.sink import Committer, WriterContext, commit_all

_UPLOAD = bytes((UPLOAD_FORMAT_VERSION,))


class PartCommitter:
    """Makes the output of one subtask visible, wherever it is."""

    def __init__(self, context: WriterContext) -> None:
        self._context = context

    def commit(self, committables: Sequence[bytes]) -> None:
        """Make everything visible that is not; what is stays as it is.

        Raises:
            StorageError: some could not be committed, or is lost; all others were.
            StateRestoreError: a committable of another version.
        """
        parts: list[tuple[Committer, list[bytes]]] = []
        if files := [raw for raw in committables if not raw.startswith(_UPLOAD)]:
            parts.append((PartFileCommitter(self._context), files))
        if uploads := [raw for raw in committables if raw.startswith(_UPLOAD)]:
            # The libraries of object stores take long to load.
            from raystream.connectors.object_sink import PartObjectCommitter

            parts.append((PartObjectCommitter(self._context), uploads))
        commit_all(partial(committer.commit, part) for committer, part in parts)
