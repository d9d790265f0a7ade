"""The file that makes a directory a snapshot: `_metadata`.

Knows the format and nothing of directories.  It is JSON in the envelope of
`raystream.storage.envelope`, never a pickle, so that reading a snapshot of unclear origin runs
nothing.  The format is spelled out in the `_Stored...` structs and not derived from the classes
that the engine works with: renaming a field in the engine must not change what lies on disks.

Bytes (inline state, enumerator state) stand in it as base64.
"""

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated

import msgspec

from raystream.errors import StateCorruptError
from raystream.handles import (
    FileHandle,
    Handle,
    OperatorSnapshot,
    SavepointFormat,
    SharedFile,
    StateInfo,
    blobs_in,
    files_in,
    shared_files_in,
    size_of,
)
from raystream.ids import CheckpointId, JobId, OperatorUid
from raystream.keygroup import KEY_GROUPS_MAX
from raystream.records.elements import SnapshotKind
from raystream.storage.envelope import seal, unseal
from raystream.storage.installed import installed_version
from raystream.storage.metadata_handles import (
    StoredChannels,
    StoredKeyed,
    StoredOperatorState,
    load_channels,
    load_keyed,
    load_operator_state,
    store_channels,
    store_keyed,
    store_operator_state,
)

FORMAT_VERSION = 4
"""That is written, and read with the one before, in which a snapshot had no records in flight."""

_FILE_KIND = "snapshot"


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorMetadata:
    """One operator in a snapshot: what it was, and what each of its subtasks stored."""

    uid: OperatorUid
    uid_generated: bool
    """True when the uid was derived from the structure of the program, so that it may change."""
    name: str
    max_parallelism: int
    parallelism: int
    states: tuple[StateInfo, ...]
    """Every state that any subtask had registered."""
    subtasks: tuple[OperatorSnapshot, ...]
    """By subtask; as many as `parallelism`."""
    ended: bool = False
    """True when every subtask had processed all its input before the barrier."""

    @property
    def stateful(self) -> bool:
        """True when there is something to restore."""
        return bool(self.states) or any(
            subtask.keyed or subtask.operator or any(handle.target == self.uid for handle in subtask.channels)
            for subtask in self.subtasks
        )

    @property
    def size_bytes(self) -> int:
        """Stored size of the operator's state."""
        return size_of(self.subtasks)


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotMetadata:
    """A whole checkpoint or savepoint: everything that a restore needs to know."""

    job_id: JobId
    job_name: str
    checkpoint_id: CheckpointId
    kind: SnapshotKind
    savepoint_format: SavepointFormat | None = None
    """Of a savepoint; None for a checkpoint, and for savepoints of before there were two."""
    created_ms: int
    """Wall time at which it was triggered, ms since epoch."""
    completed_ms: int
    """Wall time at which the last subtask had acknowledged, ms since epoch."""
    operators: tuple[OperatorMetadata, ...]
    enumerators: Mapping[OperatorUid, bytes] = field(default_factory=dict)
    """State of the split enumerator of each source."""
    raystream_version: str = field(default_factory=installed_version)
    python_version: str = field(default_factory=platform.python_version)
    """Of the job master and the slots; pickled values depend on it.  Empty when it is not known."""

    @property
    def size_bytes(self) -> int:
        """Stored size of all state."""
        return sum(map(len, self.enumerators.values())) + size_of(self.subtasks)

    @property
    def subtasks(self) -> list[OperatorSnapshot]:
        """What every subtask stored of every operator, in stored order."""
        return [subtask for operator in self.operators for subtask in operator.subtasks]

    def operator(self, uid: OperatorUid) -> OperatorMetadata | None:
        """Return the operator of this uid, or None when the snapshot has none."""
        return next((operator for operator in self.operators if operator.uid == uid), None)


def blobs_of(metadata: SnapshotMetadata) -> tuple[Handle, ...]:
    """Return every blob of a snapshot, in stored order."""
    return blobs_in(metadata.subtasks)


def files_of(metadata: SnapshotMetadata) -> tuple[FileHandle, ...]:
    """Return every file in the directory of a snapshot but `_metadata`: blobs, and files beside them."""
    return files_in(metadata.subtasks)


def shared_files_of(metadata: SnapshotMetadata) -> tuple[SharedFile, ...]:
    """Return every file outside of its directory that a snapshot needs, once."""
    return shared_files_in(metadata.subtasks)


def map_blobs(metadata: SnapshotMetadata, change: Callable[[Handle], Handle]) -> SnapshotMetadata:
    """Return the snapshot with every blob replaced by `change` of it, called in stored order."""

    def changed(snapshot: OperatorSnapshot) -> OperatorSnapshot:
        return replace(
            snapshot,
            keyed=tuple(replace(handle, data=change(handle.data)) for handle in snapshot.keyed),
            operator=tuple(replace(handle, data=change(handle.data)) for handle in snapshot.operator),
            channels=tuple(replace(handle, data=change(handle.data)) for handle in snapshot.channels),
        )

    operators = tuple(
        replace(operator, subtasks=tuple(changed(subtask) for subtask in operator.subtasks))
        for operator in metadata.operators
    )
    return replace(metadata, operators=operators)


def encode_metadata(metadata: SnapshotMetadata) -> bytes:
    """Return the bytes of a `_metadata` file."""
    stored = _StoredSnapshot(
        raystream_version=metadata.raystream_version,
        python_version=metadata.python_version,
        job_id=metadata.job_id,
        job_name=metadata.job_name,
        checkpoint_id=metadata.checkpoint_id,
        kind=metadata.kind.value,
        savepoint_format=None if metadata.savepoint_format is None else metadata.savepoint_format.value,
        created_ms=metadata.created_ms,
        completed_ms=metadata.completed_ms,
        operators=[_store_operator(operator) for operator in metadata.operators],
        enumerators={str(uid): state for uid, state in metadata.enumerators.items()},
    )
    return seal(_FILE_KIND, FORMAT_VERSION, msgspec.json.encode(stored))


def decode_metadata(data: bytes, *, path: str) -> SnapshotMetadata:
    """Return what a `_metadata` file says.

    Args:
        data: the whole file.
        path: where the bytes come from; named in errors.

    Raises:
        StateCorruptError: the file is damaged.
        StateRestoreError: the file is not a snapshot's, or of a format that is not read.
    """
    _, content = unseal(_FILE_KIND, FORMAT_VERSION, data, path=path)
    try:
        stored = _DECODER.decode(content)
        return SnapshotMetadata(
            raystream_version=stored.raystream_version,
            python_version=stored.python_version,
            job_id=JobId(stored.job_id),
            job_name=stored.job_name,
            checkpoint_id=CheckpointId(stored.checkpoint_id),
            kind=SnapshotKind(stored.kind),
            savepoint_format=(
                None if stored.savepoint_format is None else SavepointFormat(stored.savepoint_format)
            ),
            created_ms=stored.created_ms,
            completed_ms=stored.completed_ms,
            operators=tuple(_load_operator(operator) for operator in stored.operators),
            enumerators={OperatorUid(uid): state for uid, state in stored.enumerators.items()},
        )
    except (msgspec.MsgspecError, ValueError, LookupError) as error:
        # The checksum matched: whatever wrote this does not follow the format.
        raise StateCorruptError("snapshot file breaks its format", path=path, cause=str(error)) from error


# ---- format 4 -----------------------------------------------------------------
_WallMs = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799_999)]  # Up to the end of the year 9999.


class _StoredState(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    kind: str
    serializer: str
    schema: str
    map_key_schema: str
    namespaced: bool = False


class _StoredSubtask(msgspec.Struct, frozen=True, kw_only=True):
    subtask: int
    states: list[Annotated[int, msgspec.Meta(ge=0)]]
    """Positions in the operator's `states`; a keyed and an operator state may share a name."""
    keyed: list[StoredKeyed]
    operator: list[StoredOperatorState]
    channels: list[StoredChannels] = []


class _StoredOperator(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    uid: str
    uid_generated: bool
    name: str
    max_parallelism: int
    parallelism: int
    states: list[_StoredState]
    subtasks: list[_StoredSubtask]
    ended: bool = False


class _StoredSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    raystream_version: str
    python_version: str = ""
    job_id: str
    job_name: str
    checkpoint_id: int
    kind: str
    savepoint_format: str | None = None
    created_ms: _WallMs
    completed_ms: _WallMs
    operators: list[_StoredOperator]
    enumerators: dict[str, bytes]


_DECODER = msgspec.json.Decoder(_StoredSnapshot)


def _store_operator(operator: OperatorMetadata) -> _StoredOperator:
    registered = (state for subtask in operator.subtasks for state in subtask.states)
    positions = {state: n for n, state in enumerate(dict.fromkeys((*operator.states, *registered)))}
    return _StoredOperator(
        uid=operator.uid,
        uid_generated=operator.uid_generated,
        name=operator.name,
        max_parallelism=operator.max_parallelism,
        parallelism=operator.parallelism,
        states=[
            _StoredState(
                name=state.name,
                kind=state.kind,
                serializer=state.serializer,
                schema=state.schema,
                map_key_schema=state.map_key_schema,
                namespaced=state.namespaced,
            )
            for state in positions
        ],
        subtasks=[_store_subtask(subtask, positions) for subtask in operator.subtasks],
        ended=operator.ended,
    )


def _store_subtask(snapshot: OperatorSnapshot, positions: Mapping[StateInfo, int]) -> _StoredSubtask:
    return _StoredSubtask(
        subtask=snapshot.subtask,
        states=[positions[state] for state in snapshot.states],
        keyed=[store_keyed(handle) for handle in snapshot.keyed],
        operator=[store_operator_state(handle) for handle in snapshot.operator],
        channels=[store_channels(handle) for handle in snapshot.channels],
    )


def _load_operator(stored: _StoredOperator) -> OperatorMetadata:
    states = tuple(
        StateInfo(
            name=state.name,
            kind=state.kind,
            serializer=state.serializer,
            schema=state.schema,
            map_key_schema=state.map_key_schema,
            namespaced=state.namespaced,
        )
        for state in stored.states
    )
    if [subtask.subtask for subtask in stored.subtasks] != list(range(stored.parallelism)):
        raise ValueError(f"operator {stored.uid!r} does not have one part for each subtask")
    if not 1 <= stored.max_parallelism <= KEY_GROUPS_MAX:
        raise ValueError(f"operator {stored.uid!r} has {stored.max_parallelism} key groups")
    uid = OperatorUid(stored.uid)
    return OperatorMetadata(
        uid=uid,
        uid_generated=stored.uid_generated,
        name=stored.name,
        max_parallelism=stored.max_parallelism,
        parallelism=stored.parallelism,
        states=states,
        subtasks=tuple(_load_subtask(uid, states, subtask) for subtask in stored.subtasks),
        ended=stored.ended,
    )


def _load_subtask(
    uid: OperatorUid, states: tuple[StateInfo, ...], stored: _StoredSubtask
) -> OperatorSnapshot:
    return OperatorSnapshot(
        uid=uid,
        subtask=stored.subtask,
        states=tuple(states[position] for position in stored.states),
        keyed=tuple(map(load_keyed, stored.keyed)),
        operator=tuple(map(load_operator_state, stored.operator)),
        channels=tuple(map(load_channels, stored.channels)),
    )
