"""One module names all files, and no name is given twice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raystream.errors import StateCorruptError
from raystream.storage.layout import (
    JobLayout,
    checkpoint_of,
    data_file,
    job_of,
    log_number_of,
    metadata_path,
    owned_by_snapshot,
    part_file,
    resolve,
    savepoint_dir,
)
from tests.unit.storage.sample import JOB


def test_paths_are_those_of_the_specification():
    layout = JobLayout("/data/checkpoints/", JOB)

    assert layout.checkpoint_dir(7) == f"file:///data/checkpoints/{JOB}/chk-7"
    assert metadata_path(layout.checkpoint_dir(7)).endswith("/chk-7/_metadata")
    assert layout.shared_dir == f"file:///data/checkpoints/{JOB}/shared"
    assert layout.taskowned_dir == f"file:///data/checkpoints/{JOB}/taskowned"
    assert layout.log_entry(12) == f"file:///data/checkpoints/{JOB}/log/00000012"
    assert layout.graph_path == f"file:///data/checkpoints/{JOB}/graph"
    assert layout.archive_path == f"file:///data/checkpoints/{JOB}/archive"
    assert savepoint_dir("/sp", JOB, "0a1b2c3d4e5f") == "file:///sp/savepoint-012345-0a1b2c3d4e5f"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("chk-1", 1), ("chk-120", 120), ("chk-0", None), ("chk-01", None), ("chk-", None), ("xchk-1", None)],
)
def test_a_checkpoint_is_told_by_the_name_of_its_directory(name, expected):
    assert checkpoint_of(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [("00000001", 1), ("123456789", 123456789), ("1", None), (".tmp-00000001", None)],
)
def test_a_log_entry_is_told_by_its_name(name, expected):
    assert log_number_of(name) == expected


def test_log_entries_sort_by_name():
    layout = JobLayout("/data", JOB)
    numbers = [1, 2, 10, 99, 100, 12_345_678]

    assert sorted(map(layout.log_entry, numbers)) == list(map(layout.log_entry, numbers))


@given(uid=st.text(min_size=1), state=st.text(min_size=1), subtask=st.integers(0, 9))
def test_a_part_has_a_path_of_its_own_within_its_savepoint(uid, state, subtask):
    path = part_file(uid, state, subtask)
    parts = path.split("/")

    assert resolve("file:///x", path) == f"file:///x/{path}"
    assert len(parts) == 3
    assert all(len(part) <= 160 and not part.startswith(".") for part in parts)


def test_long_names_that_begin_alike_have_different_parts():
    assert part_file("u" * 300 + "1", "s", 0) != part_file("u" * 300 + "2", "s", 0)


def test_only_directories_that_raystream_names_belong_to_one_snapshot():
    assert owned_by_snapshot("file:///x/chk-1")
    assert owned_by_snapshot("file:///x/savepoint-012345-0a1b2c3d4e5f")
    assert not owned_by_snapshot("file:///x/backup-of-savepoint")
    assert not owned_by_snapshot("file:///x")
    assert job_of(JOB) == JOB
    assert job_of("savepoint-012345-0a1b2c3d4e5f") is None


parts = st.tuples(
    st.integers(1, 99), st.integers(1, 99), st.integers(0, 99), st.integers(0, 99),
    st.text(max_size=300), st.sampled_from(["keyed", "operator"]), st.sampled_from(["5eed", "f00d"]),
)  # fmt: skip


def name_of(part):
    checkpoint_id, attempt, vertex, subtask, uid, kind, token = part
    return data_file(checkpoint_id, attempt, (vertex, subtask), uid, kind=kind, token=token)


@given(parts, parts)
def test_different_data_has_different_names(one, other):
    assert (name_of(one) == name_of(other)) == (one == other)


@given(parts)
def test_a_data_file_is_one_name_that_every_store_takes(part):
    name = name_of(part)

    assert len(name) < 200
    assert name.isascii()
    assert resolve("file:///x", name) == f"file:///x/{name}"


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../other", "a/../../b", "a//b", "./a", "file:///x"])
def test_a_handle_that_leads_out_of_its_snapshot_is_refused(path):
    with pytest.raises(StateCorruptError, match="leads out of its snapshot"):
        resolve("file:///x", path)


def test_a_snapshot_in_memory_has_no_files():
    with pytest.raises(StateCorruptError, match="in memory"):
        resolve("", "file")
