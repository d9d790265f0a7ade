"""Look into savepoints and checkpoints from Python, and write savepoints that a job starts from.

    import raystream.savepoint

    with raystream.savepoint.open("savepoints/savepoint-3f9a1c-0123456789ab") as savepoint:
        hits = savepoint.state("count-hits", "hits").to_arrow()

Neither the program nor its classes are needed, and nothing is unpickled.
"""

from raystream.savepoint.given import KeyedState, OperatorState, Timers
from raystream.savepoint.opened import Operator, Savepoint, State
from raystream.savepoint.snapshot import Progress, SnapshotReader, silent
from raystream.savepoint.writing import write
from raystream.storage.filesystem import OpenFileSystem
from raystream.storage.stores import open_file_system

__all__ = [
    "KeyedState",
    "Operator",
    "OperatorState",
    "Savepoint",
    "State",
    "Timers",
    "open",
    "write",
]


def open(  # noqa: A001 - read as `savepoint.open`
    path: str, *, progress: Progress = silent, open_fs: OpenFileSystem = open_file_system
) -> Savepoint:
    """Open a savepoint of either format, or a checkpoint of either backend, for reading.

    Args:
        path: its directory or the `_metadata` in it, as path or URL.
        progress: told how many bytes were copied, and of how many, while files of a checkpoint are fetched.
        open_fs: gives the store of a URL.

    Raises:
        StateRestoreError: nothing is there, or it is not a snapshot that can be read.
        StateCorruptError: the snapshot is damaged; the error names the file.
        StorageError: the store did not answer.
    """
    return Savepoint(SnapshotReader(path, open_fs=open_fs, progress=progress))
