"""Snapshots to store, as values and as hypothesis strategies."""

import xxhash
from hypothesis import strategies as st

from raystream.handles import (
    FileHandle,
    Footer,
    Handle,
    InlineHandle,
    KeyedStateHandle,
    NamedFile,
    OperatorSnapshot,
    OperatorStateHandle,
    Redistribution,
    SavepointFormat,
    SharedFile,
    StateInfo,
)
from raystream.ids import JobStatus
from raystream.keygroup import KeyGroupRange
from raystream.records.elements import SnapshotKind
from raystream.storage.archive import ArchivedCheckpoint, ArchivedJob
from raystream.storage.layout import data_file
from raystream.storage.metadata import OperatorMetadata, SnapshotMetadata

JOB = "0123456789abcdef0123456789abcdef"
OTHER_JOB = "fedcba9876543210fedcba9876543210"


def snapshot(
    checkpoint_id: int = 1,
    handles: tuple[Handle, ...] = (InlineHandle(data=b"state"),),
    *,
    job_id: str = JOB,
    name: str = "count",
    completed_ms: int = 2_000,
    kind: SnapshotKind = SnapshotKind.CHECKPOINT,
    shared: tuple[SharedFile, ...] = (),
    files: tuple[NamedFile, ...] = (),
) -> SnapshotMetadata:
    """A snapshot of one keyed operator with one subtask for each handle, all with the same files."""
    states = (StateInfo(name="hits", kind="value", serializer="msgpack-1", schema="int"),)

    def subtask(n: int, handle: Handle) -> OperatorSnapshot:
        keyed = KeyedStateHandle(
            groups=KeyGroupRange(n, n + 1), entries=1, data=handle, shared=shared, files=files
        )
        return OperatorSnapshot(uid="count-hits", subtask=n, states=states, keyed=(keyed,))

    return SnapshotMetadata(
        job_id=job_id,
        job_name=name,
        checkpoint_id=checkpoint_id,
        kind=kind,
        created_ms=1_000,
        completed_ms=completed_ms,
        operators=(
            OperatorMetadata(
                uid="count-hits",
                uid_generated=False,
                name="count hits",
                max_parallelism=128,
                parallelism=len(handles),
                states=states,
                subtasks=tuple(subtask(n, handle) for n, handle in enumerate(handles)),
            ),
        ),
        enumerators={"source": b"\x00splits\xff"},
        raystream_version="0.1.0",
        python_version="3.12.1",
    )


def shared_file(checkpoint_id: int, content: bytes, *, local: str = "000008.sst") -> SharedFile:
    """What is known of a shared file with this content that was written for a checkpoint."""
    return SharedFile(
        name=data_file(checkpoint_id, 1, (0, 0), "count-hits", kind=f"shared-{local}", token="5eed"),
        local=local,
        created_by=checkpoint_id,
        size_bytes=len(content),
        checksum=xxhash.xxh3_64_hexdigest(content),
    )


def named_file(path: str, content: bytes, *, local: str = "hits") -> NamedFile:
    """What is known of a file with this content in the directory of its only snapshot."""
    footer = Footer(size_bytes=len(content[-4:]), checksum=xxhash.xxh3_64_hexdigest(content[-4:]))
    checksum = xxhash.xxh3_64_hexdigest(content)
    return NamedFile(
        local=local,
        file=FileHandle(path=path, size_bytes=len(content), checksum=checksum, footer=footer),
    )


def archived(job_id=JOB, **changes):
    fields = {
        "job_id": job_id, "name": "count", "status": JobStatus.FAILED, "parallelism": 2,
        "records_in": 10, "records_out": 9, "restarts": 3, "duration_ms": 1234,
        "last_checkpoint_id": None, "error": "user code raised",
        "checkpoints": (
            ArchivedCheckpoint(
                checkpoint_id=1, kind=SnapshotKind.SAVEPOINT, location="file:///s", created_ms=1,
                duration_ms=2.5, size_bytes=3,
            ),
        ),
    }  # fmt: skip
    return ArchivedJob(**{**fields, **changes})


names = st.text(max_size=12)
sizes = st.integers(0, 2**62)
wall_times = st.integers(0, 253_402_300_799_999)
footers = st.builds(Footer, size_bytes=sizes, checksum=st.just("ddccbbaa33221100"))
files = st.builds(
    FileHandle,
    path=names,
    size_bytes=sizes,
    checksum=st.just("00112233aabbccdd"),
    footer=st.none() | footers,
)
handles = st.builds(InlineHandle, data=st.binary(max_size=40)) | files
named_files = st.builds(NamedFile, local=names, file=files)
shared_files = st.builds(
    SharedFile,
    name=names,
    local=names,
    created_by=st.integers(1, 2**62),
    size_bytes=sizes,
    checksum=st.just("00112233aabbccdd"),
)
state_infos = st.builds(
    StateInfo,
    name=names,
    kind=names,
    serializer=names,
    schema=names,
    map_key_schema=names,
    namespaced=st.booleans(),
)


@st.composite
def operators(draw: st.DrawFn) -> OperatorMetadata:
    uid, states = draw(names), draw(st.lists(state_infos, max_size=3, unique=True))
    parallelism = draw(st.integers(1, 3))
    subtasks = []
    for subtask in range(parallelism):
        registered = draw(st.lists(st.sampled_from(states), unique=True)) if states else []
        start = draw(st.integers(0, 32_767))
        groups = KeyGroupRange(start, draw(st.integers(start + 1, 32_768)))
        subtasks.append(
            OperatorSnapshot(
                uid=uid,
                subtask=subtask,
                states=tuple(registered),
                keyed=tuple(
                    KeyedStateHandle(
                        groups=groups,
                        entries=draw(st.none() | sizes),
                        data=handle,
                        shared=tuple(draw(st.lists(shared_files, max_size=2))),
                        files=tuple(draw(st.lists(named_files, max_size=2))),
                    )
                    for handle in draw(st.lists(handles, max_size=2))
                ),
                operator=tuple(
                    OperatorStateHandle(
                        name=draw(names),
                        mode=draw(st.sampled_from(Redistribution)),
                        element_count=draw(sizes),
                        data=handle,
                    )
                    for handle in draw(st.lists(handles, max_size=2))
                ),
            )
        )
    return OperatorMetadata(
        uid=uid,
        uid_generated=draw(st.booleans()),
        name=draw(names),
        max_parallelism=draw(st.integers(1, 32_768)),
        parallelism=parallelism,
        states=tuple(states),
        subtasks=tuple(subtasks),
        ended=draw(st.booleans()),
    )


snapshots = st.builds(
    SnapshotMetadata,
    job_id=st.just(JOB),
    job_name=names,
    checkpoint_id=st.integers(1, 2**62),
    kind=st.sampled_from(SnapshotKind),
    savepoint_format=st.none() | st.sampled_from(SavepointFormat),
    created_ms=wall_times,
    completed_ms=wall_times,
    operators=st.lists(operators(), max_size=3).map(tuple),
    enumerators=st.dictionaries(names, st.binary(max_size=20), max_size=2),
    raystream_version=names,
    python_version=names,
)
