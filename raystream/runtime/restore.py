"""Reads back what a restore gives to one operator subtask; blocks, so it runs in a thread."""

from dataclasses import dataclass, field

from raystream.keygroup import KeyGroupRange
from raystream.runtime.messages import OperatorRestore
from raystream.state.backend import KeyedStateBackend
from raystream.state.operator_state import decode_elements
from raystream.state.snapshot_format import load_snapshot
from raystream.storage.blobs import SnapshotFiles


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyedOwner:
    """A keyed backend and the key groups that are its own."""

    backend: KeyedStateBackend
    groups: KeyGroupRange
    max_parallelism: int


@dataclass(frozen=True, slots=True)
class RestoredOperator:
    """Operator state by name, the elements in their stored order."""

    operator_state: dict[str, list[bytes]] = field(default_factory=dict)


def read_operator(
    files: SnapshotFiles, restore: OperatorRestore, keyed: KeyedOwner | None
) -> RestoredOperator:
    """Return the operator state of one subtask and load its keyed state into the backend.

    Raises:
        StateCorruptError: a blob is missing or is not what was written.
        StorageError: the store did not answer.
    """
    operator_state: dict[str, list[bytes]] = {}
    for part in restore.operator:
        elements = decode_elements(files.read_handle(restore.directory, part.handle.data))
        operator_state.setdefault(part.handle.name, []).extend(elements[part.start : part.stop])
    if keyed is not None:
        keyed.backend.restore(
            load_snapshot(reader.read_range, reader.size_bytes, keyed.groups, keyed.max_parallelism)
            for reader in (files.open_handle(restore.directory, handle.data) for handle in restore.keyed)
        )
    return RestoredOperator(operator_state)
