"""Whole snapshots of the present formats, and of the ones before, restore with every state right."""

import shutil
from collections import Counter

import pytest

from raystream import JobStatus
from raystream.connectors.files import FileSink
from raystream.storage.envelope import unseal
from raystream.storage.metadata import FORMAT_VERSION
from tests.every_state import expected
from tests.golden.make import BYTES_MAX, COUNT, HALF, KINDS, SNAPSHOTS, STATES, add_half, environment, size_of
from tests.published import records, tuples

GOLDEN = sorted(path.name for path in SNAPSHOTS.iterdir())


def snapshot_in(directory):
    (metadata,) = directory.rglob("_metadata")
    return metadata.parent


RESTORABLE = [
    (name, backend)
    for name in GOLDEN
    for backend in ("hashmap", "rocksdb")
    if backend == "rocksdb" or not name.startswith(("rocksdb", "native"))
]
"""Snapshots and the backends that restore them: files of a backend only by that one."""


def test_there_is_a_small_snapshot_of_every_kind_for_the_present_format():
    assert {f"{kind}-{FORMAT_VERSION}" for kind in KINDS} <= set(GOLDEN)
    assert all(size_of(SNAPSHOTS / name) < BYTES_MAX for name in GOLDEN)


@pytest.mark.parametrize("name", GOLDEN)
def test_snapshot_is_of_the_format_that_its_name_says(name):
    path = snapshot_in(SNAPSHOTS / name) / "_metadata"
    version, _ = unseal("snapshot", FORMAT_VERSION, path.read_bytes(), path=str(path))
    assert name.endswith(f"-{version}")


@pytest.mark.parametrize("parallelism", [1, 2])
@pytest.mark.parametrize(("name", "backend"), RESTORABLE)
def test_every_state_of_a_golden_snapshot_is_right(name, backend, parallelism, tmp_path):
    shutil.copytree(SNAPSHOTS / name, tmp_path / "copy")
    path = snapshot_in(tmp_path / "copy")
    env = environment(tmp_path, backend, parallelism=parallelism, execution_state_recovery_path=str(path))
    stream = add_half(env, *range(HALF, COUNT))
    stream.sink_to(FileSink.json_lines(str(tmp_path / "out")), uid="published")

    assert env.execute("golden").status is JobStatus.FINISHED
    published = Counter(map(tuples, records(tmp_path / "out")))
    wanted = Counter(expected(COUNT, len(STATES)))
    assert published <= wanted
    # Timers of processing time may have fired before the snapshot; everything else is published at the end.
    assert {record[0] for record in wanted - published} <= {"processing timer"}
    assert all(record[2] < HALF for record in wanted - published)
