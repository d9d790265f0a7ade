"""Reads back what a restore gives to one operator subtask; blocks, so it runs in a thread."""

from dataclasses import dataclass, field

import msgspec

from raystream.errors import StateCorruptError
from raystream.runtime.messages import OperatorRestore
from raystream.state.backend import KeyedStateBackend
from raystream.storage.blobs import SnapshotFiles


@dataclass(frozen=True, slots=True)
class RestoredOperator:
    """Operator state by name, the elements in their stored order."""

    operator_state: dict[str, list[bytes]] = field(default_factory=dict)


def read_operator(
    files: SnapshotFiles, restore: OperatorRestore, backend: KeyedStateBackend | None
) -> RestoredOperator:
    """Return the operator state of one subtask and load its keyed state into the backend.

    Raises:
        StateCorruptError: a blob is missing or is not what was written.
        StorageError: the store did not answer.
    """
    operator_state: dict[str, list[bytes]] = {}
    for part in restore.operator:
        data = files.read_handle(restore.directory, part.handle.data)
        try:
            elements = msgspec.msgpack.decode(data, type=list[bytes])
        except msgspec.MsgspecError as error:
            raise StateCorruptError(
                "operator state does not decode", state=part.handle.name, directory=restore.directory
            ) from error
        operator_state.setdefault(part.handle.name, []).extend(elements[part.start : part.stop])
    if backend is not None:
        backend.restore(
            [files.open_handle(restore.directory, handle.data) for handle in restore.keyed]
        )
    return RestoredOperator(operator_state)
