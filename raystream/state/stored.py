"""What is stored of the state of one subtask, whatever kind of snapshot it is in.

    keyed state      a blob with all entries        `raystream.state.snapshot_format`
                     files of the backend           `raystream.state.snapshot_files`
                     parts of a canonical savepoint `raystream.state.canonical_snapshot`
    operator state   a blob of elements             `raystream.state.operator_state`
                     a part                         `raystream.state.canonical_operators`

The first bytes tell them apart.  Parquet takes half a second of CPU time to import, which is spent when the
first part is met and not by every process of every job.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, TypeAlias

from raystream.handles import SharedFile
from raystream.keygroup import KeyGroupRange
from raystream.state import canonical_index, snapshot_files
from raystream.state.blob_header import HEADER, MAGIC_BYTES
from raystream.state.canonical_index import PartPlace
from raystream.state.operator_state import decode_elements
from raystream.state.snapshot_files import Each, Pieces, StoredFiles, one_by_one, open_files
from raystream.state.snapshot_format import StoredSnapshot, open_snapshot

if TYPE_CHECKING:
    from raystream.state.canonical_snapshot import StoredParts

_PARQUET_MAGIC = b"PAR1"

Entries: TypeAlias = "StoredSnapshot | StoredParts"
"""A snapshot of entries, which every backend reads."""

Stored: TypeAlias = "StoredSnapshot | StoredParts | StoredFiles"


class Blob(Protocol):
    """Reads parts of a stored blob; blocks."""

    @property
    def path(self) -> str:
        """Where it is, for errors."""

    @property
    def size_bytes(self) -> int:
        """Length of the whole blob."""

    def read_range(self, offset: int, length: int) -> bytes:
        """Return the bytes `[offset, offset + length)`."""

    def read_all(self) -> bytes:
        """Return the whole blob, verified."""


def open_stored(
    blob: Blob,
    files: Mapping[str, Pieces],
    groups: KeyGroupRange,
    max_parallelism: int,
    *,
    known: Mapping[str, SharedFile],
    parts: Mapping[str, PartPlace],
    each: Each = one_by_one,
) -> Stored:
    """Return what was stored of the keyed state of one subtask; blocks.

    Args:
        blob: its self-describing part.
        files: its files by local name.
        groups: the wanted key groups, under `max_parallelism`.
        max_parallelism: of the new owner.
        known: those of the files that belong to checkpoints of this job, so that the next may refer to them.
        parts: those of the files that are parts of a canonical savepoint.
        each: fetches the files.

    Raises:
        StateCorruptError: a byte is not what it was when the blob was written.
        StateRestoreError: a newer version wrote the blob.
    """
    magic = b"" if blob.size_bytes < HEADER.size else blob.read_range(0, MAGIC_BYTES)
    if magic == canonical_index.MAGIC:
        from raystream.state.canonical_snapshot import open_parts

        return open_parts(blob.read_all(), parts, groups, max_parallelism)
    if magic == snapshot_files.MAGIC:
        return open_files(blob.read_all(), files, known=known, each=each)
    return open_snapshot(blob.read_range, blob.size_bytes, groups, max_parallelism, path=blob.path)


def stored_elements(data: bytes, path: str) -> list[bytes]:
    """Return the elements of operator state, in order.

    Args:
        data: the whole blob or part.
        path: where it is, for errors.

    Raises:
        StateCorruptError: it is not what was written.
        StateRestoreError: a newer version wrote it.
    """
    if not data.startswith(_PARQUET_MAGIC):
        return decode_elements(data)
    from raystream.state.canonical_operators import read_operator_part

    return read_operator_part(data, path)
