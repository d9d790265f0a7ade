"""Reads back what a restore gives to one operator subtask; reading blocks, so it runs in a thread."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

from raystream.errors import StateRestoreError
from raystream.handles import KeyedStateHandle
from raystream.keygroup import KeyGroupRange
from raystream.operators.operator import OperatorContext
from raystream.runtime.messages import OperatorRestore
from raystream.state.backend import KeyedStateBackend
from raystream.state.operator_state import decode_elements
from raystream.state.operator_store import OperatorStore
from raystream.state.registry import StateMatch, Verdict
from raystream.state.snapshot_files import Stored, open_stored
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
    """The operator state of one subtask, the elements of a name in their stored order."""

    operator_state: dict[str, list[bytes]] = field(default_factory=dict)
    store: OperatorStore = field(default_factory=OperatorStore)
    """What of it the program declares, once it has opened."""


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
        keyed.backend.restore([_open(files, restore, handle, keyed) for handle in restore.keyed])
    return RestoredOperator(operator_state, OperatorStore(operator_state, restore.states, is_restored=True))


def _open(
    files: SnapshotFiles, restore: OperatorRestore, handle: KeyedStateHandle, owner: KeyedOwner
) -> Stored:
    return open_stored(
        files.open_handle(restore.directory, handle.data),
        handle.shared,
        owner.groups,
        owner.max_parallelism,
        fetch=partial(files.fetch_shared, restore.directory),
        own=restore.own,
    )


def settle_restored(contexts: Iterable[OperatorContext], *, drop: bool) -> None:
    """See to the restored state that the program, now open, cannot take over.

    Args:
        contexts: of operators that are open; all are looked at before anything is said.
        drop: the user allows that state which the program does not register is dropped.

    Raises:
        StateRestoreError: some state does not fit its declaration, or is not registered and may not be
            dropped; the message has a table of all states of these operators.
    """
    operators = list(contexts)
    found = [
        (context, match)
        for context in operators
        for holder in _holders(context)
        for match in holder.restored_states()
    ]
    verdicts = {match.verdict for _, match in found}
    if Verdict.DIFFERENT in verdicts or (Verdict.MISSING in verdicts and not drop):
        raise _misfit(found)
    for context in operators:
        for holder in _holders(context):
            names = [info.name for info in holder.drop_unregistered()]
            if names:
                logger.warning("restored state was dropped", extra={"uid": context.uid, "states": names})


def _holders(context: OperatorContext) -> list[KeyedStateBackend | OperatorStore]:
    keyed = context.keyed_backend
    return [context.operator_store] if keyed is None else [keyed, context.operator_store]


def _misfit(found: list[tuple[OperatorContext, StateMatch]]) -> StateRestoreError:
    """Return the error that lists every state and says what is wrong with each that does not fit."""
    verdicts = {match.verdict for _, match in found}
    advice = []
    if Verdict.DIFFERENT in verdicts:
        advice.append(
            "declare state as it was when it was written, give its descriptor a `migrate` function, or"
            " register the new one under another name"
        )
    if Verdict.MISSING in verdicts:
        advice.append("register missing state again, or drop it with --allow-non-restored-state")
    return StateRestoreError(
        "snapshot has state that the program does not register, or registers differently:\n" + _table(found),
        hint="; ".join(advice),
    )


def _table(found: list[tuple[OperatorContext, StateMatch]]) -> str:
    """Return one line for each state; of several subtasks entries and bytes are added up."""
    of_state: dict[tuple[str, str], list[tuple[OperatorContext, StateMatch]]] = {}
    for context, match in found:
        of_state.setdefault((context.uid, match.name), []).append((context, match))
    rows = [("", "uid", "operator", "state", "entries", "bytes", "")]
    for (uid, state), parts in of_state.items():
        context, match = max(parts, key=lambda part: bool(part[1].problem))
        entries = _total([part.entries for _, part in parts])
        size_bytes = _total([part.size_bytes for _, part in parts])
        rows.append((match.verdict.value, uid, context.name, state, entries, size_bytes, match.problem))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(f"  {line}" for line in lines)


def _total(counts: list[int | None]) -> str:
    """Return the sum; nothing when it is not known, as of files that hold several states."""
    known = [count for count in counts if count is not None]
    return str(sum(known)) if len(known) == len(counts) else ""
