"""Reads back what a restore gives to one operator subtask; reading blocks, so it runs in a thread."""

import logging
from dataclasses import dataclass, field

from raystream.errors import StateRestoreError
from raystream.keygroup import KeyGroupRange
from raystream.operators.operator import OperatorContext
from raystream.runtime.messages import OperatorRestore
from raystream.state.backend import KeyedStateBackend
from raystream.state.operator_state import decode_elements
from raystream.state.snapshot_format import load_snapshot
from raystream.storage.blobs import SnapshotFiles

logger = logging.getLogger(__name__)


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


def settle_unregistered(context: OperatorContext, *, drop: bool) -> None:
    """See to the restored keyed state that the program, now open, has not registered.

    Args:
        context: of the operator that the state belongs to.
        drop: the user allows that it is dropped.

    Raises:
        StateRestoreError: there is some, and it may not be dropped.
    """
    backend = context.keyed_backend
    missing = () if backend is None else backend.unregistered_states()
    if backend is None or not missing:
        return
    names = sorted(state.name for state in missing)
    if not drop:
        raise StateRestoreError(
            "snapshot has state that the program does not register",
            hint="restore with --allow-non-restored-state to drop it, or register it again",
            operator=context.name,
            uid=context.uid,
            states=names,
        )
    backend.drop_unregistered()
    logger.warning("restored state was dropped", extra={"uid": context.uid, "states": names})
