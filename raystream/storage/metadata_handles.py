"""How the handles of a snapshot stand in its `_metadata`.

Beside `raystream.storage.metadata`, which says why the format is spelled out in structs of its own.
Bytes of inline state are base64 there.
"""

import msgspec

from raystream.handles import (
    ChannelSlice,
    ChannelStage,
    ChannelStateHandle,
    FileHandle,
    Footer,
    Handle,
    InlineHandle,
    KeyedStateHandle,
    NamedFile,
    OperatorStateHandle,
    Redistribution,
    SharedFile,
)
from raystream.ids import CheckpointId, OperatorUid
from raystream.keygroup import KeyGroupRange


class StoredFooter(msgspec.Struct, frozen=True, kw_only=True):
    """A `Footer`."""

    size_bytes: int
    checksum: str


class StoredFile(msgspec.Struct, frozen=True, kw_only=True, tag_field="in", tag="file", omit_defaults=True):
    """A `FileHandle`."""

    path: str
    size_bytes: int
    checksum: str
    footer: StoredFooter | None = None


class StoredInline(msgspec.Struct, frozen=True, kw_only=True, tag_field="in", tag="metadata"):
    """An `InlineHandle`."""

    data: bytes


class StoredShared(msgspec.Struct, frozen=True, kw_only=True):
    """A `SharedFile`."""

    name: str
    local: str
    created_by: int
    size_bytes: int
    checksum: str


class StoredNamed(msgspec.Struct, frozen=True, kw_only=True):
    """A `NamedFile`."""

    local: str
    file: StoredFile


class StoredKeyed(msgspec.Struct, frozen=True, kw_only=True):
    """A `KeyedStateHandle`."""

    key_groups: tuple[int, int]
    entries: int | None
    data: StoredFile | StoredInline
    shared: list[StoredShared] = []
    files: list[StoredNamed] = []


class StoredOperatorState(msgspec.Struct, frozen=True, kw_only=True):
    """An `OperatorStateHandle`."""

    name: str
    redistribution: str
    elements: int
    data: StoredFile | StoredInline


class StoredSlice(msgspec.Struct, frozen=True, kw_only=True):
    """A `ChannelSlice`."""

    sender: int
    receiver: int
    offset: int
    size_bytes: int
    batches: int


class StoredChannels(msgspec.Struct, frozen=True, kw_only=True):
    """A `ChannelStateHandle`."""

    target: str
    input: int
    stage: str
    keyed: bool
    records: int
    slices: list[StoredSlice]
    data: StoredFile | StoredInline


def store_keyed(handle: KeyedStateHandle) -> StoredKeyed:
    """Return what stands for keyed state."""
    return StoredKeyed(
        key_groups=(handle.groups.start, handle.groups.stop),
        entries=handle.entries,
        data=_store_blob(handle.data),
        shared=[
            StoredShared(
                name=file.name,
                local=file.local,
                created_by=file.created_by,
                size_bytes=file.size_bytes,
                checksum=file.checksum,
            )
            for file in handle.shared
        ],
        files=[StoredNamed(local=file.local, file=_store_file(file.file)) for file in handle.files],
    )


def load_keyed(stored: StoredKeyed) -> KeyedStateHandle:
    """Return the keyed state that something stands for.

    Raises:
        ValueError: its key groups are none.
    """
    start, stop = stored.key_groups
    if not 0 <= start < stop:
        raise ValueError(f"key groups {start} to {stop}")
    return KeyedStateHandle(
        groups=KeyGroupRange(start, stop),
        entries=stored.entries,
        data=_load_blob(stored.data),
        shared=tuple(
            SharedFile(
                name=file.name,
                local=file.local,
                created_by=CheckpointId(file.created_by),
                size_bytes=file.size_bytes,
                checksum=file.checksum,
            )
            for file in stored.shared
        ),
        files=tuple(NamedFile(local=file.local, file=_load_file(file.file)) for file in stored.files),
    )


def store_operator_state(handle: OperatorStateHandle) -> StoredOperatorState:
    """Return what stands for a list of operator state."""
    return StoredOperatorState(
        name=handle.name,
        redistribution=handle.mode.value,
        elements=handle.element_count,
        data=_store_blob(handle.data),
    )


def load_operator_state(stored: StoredOperatorState) -> OperatorStateHandle:
    """Return the list of operator state that something stands for.

    Raises:
        ValueError: its mode of redistribution is none.
    """
    return OperatorStateHandle(
        name=stored.name,
        mode=Redistribution(stored.redistribution),
        element_count=stored.elements,
        data=_load_blob(stored.data),
    )


def store_channels(handle: ChannelStateHandle) -> StoredChannels:
    """Return what stands for records in flight."""
    return StoredChannels(
        target=handle.target,
        input=handle.input,
        stage=handle.stage.value,
        keyed=handle.keyed,
        records=handle.records,
        slices=[
            StoredSlice(
                sender=one.sender,
                receiver=one.receiver,
                offset=one.offset,
                size_bytes=one.size_bytes,
                batches=one.batches,
            )
            for one in handle.slices
        ],
        data=_store_blob(handle.data),
    )


def load_channels(stored: StoredChannels) -> ChannelStateHandle:
    """Return the records in flight that something stands for.

    Raises:
        ValueError: a number is out of its range.
    """
    if stored.input < 0:
        raise ValueError(f"records in flight to input {stored.input}")
    for one in stored.slices:
        if min(one.sender, one.receiver, one.offset) < 0 or min(one.size_bytes, one.batches) < 1:
            raise ValueError(f"slice of records in flight: {one}")
    return ChannelStateHandle(
        target=OperatorUid(stored.target),
        input=stored.input,
        stage=ChannelStage(stored.stage),
        keyed=stored.keyed,
        records=stored.records,
        slices=tuple(
            ChannelSlice(
                sender=one.sender,
                receiver=one.receiver,
                offset=one.offset,
                size_bytes=one.size_bytes,
                batches=one.batches,
            )
            for one in stored.slices
        ),
        data=_load_blob(stored.data),
    )


def _store_blob(handle: Handle) -> StoredFile | StoredInline:
    return StoredInline(data=handle.data) if isinstance(handle, InlineHandle) else _store_file(handle)


def _load_blob(stored: StoredFile | StoredInline) -> Handle:
    return InlineHandle(data=stored.data) if isinstance(stored, StoredInline) else _load_file(stored)


def _store_file(handle: FileHandle) -> StoredFile:
    footer = None
    if handle.footer is not None:
        footer = StoredFooter(size_bytes=handle.footer.size_bytes, checksum=handle.footer.checksum)
    return StoredFile(path=handle.path, size_bytes=handle.size_bytes, checksum=handle.checksum, footer=footer)


def _load_file(stored: StoredFile) -> FileHandle:
    footer = None
    if stored.footer is not None:
        footer = Footer(size_bytes=stored.footer.size_bytes, checksum=stored.footer.checksum)
    return FileHandle(path=stored.path, size_bytes=stored.size_bytes, checksum=stored.checksum, footer=footer)
