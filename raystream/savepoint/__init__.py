"""Look into savepoints and checkpoints from Python, and write savepoints that a job starts from.

Neither the program nor its classes are needed, and nothing is unpickled.

Example:
    A savepoint from nothing, and one in which a state has changed:

    >>> import tempfile
    >>> import raystream.savepoint as savepoint
    >>> from raystream import ValueStateDescriptor
    >>> directory = tempfile.mkdtemp()
    >>> rows = {"key": ["/", "/about"], "value": [41, 1]}
    >>> hits = savepoint.KeyedState("count-hits", ValueStateDescriptor("hits", int), rows)
    >>> path = savepoint.write(f"{directory}/first", [hits], job_name="access log count")
    >>> with savepoint.open(path) as first:
    ...     table = first.state("count-hits", "hits").to_arrow()
    ...     position = table.column_names.index("value")
    ...     more = table.set_column(position, "value", [[value + 1 for value in (41, 1)]])
    ...     changed = savepoint.KeyedState("count-hits", "hits", more)
    ...     path = savepoint.write(f"{directory}/second", [changed], base=first)
    >>> with savepoint.open(path) as second:
    ...     sorted(second.state("count-hits", "hits").to_arrow().column("value").to_pylist())
    [2, 42]
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
        progress: told what takes its time, `copying` or `reading`, how many bytes are done, and of how many.
        open_fs: gives the store of a URL.

    Raises:
        StateRestoreError: nothing is there, or it is not a snapshot that can be read.
        StateCorruptError: the snapshot is damaged; the error names the file.
        StorageError: the store did not answer.
    """
    return Savepoint(SnapshotReader(path, open_fs=open_fs, progress=progress))
