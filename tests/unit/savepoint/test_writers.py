"""What a writer of savepoints refuses: another one in its directory, and what no job could restore."""

import pyarrow as pa
import pytest

import raystream.savepoint
from raystream import ValueStateDescriptor
from raystream.errors import ConfigError, GraphError, StateError, StorageError
from raystream.savepoint import KeyedState, Timers
from raystream.savepoint.rows import values_of
from raystream.storage.local import LocalFileSystem

HITS = ValueStateDescriptor("hits", int)


class Interrupted(LocalFileSystem):
    """A disk on which something happens just before a savepoint becomes complete."""

    def __init__(self, meanwhile):
        super().__init__()
        self._meanwhile = meanwhile

    def create_exclusive(self, url, data):
        if url.endswith("_metadata"):
            self._meanwhile()
        return super().create_exclusive(url, data)


def test_writer_that_meets_another_one_in_its_directory_leaves_it_alone(tmp_path):
    path = str(tmp_path / "savepoint")
    refused = []

    def another_one():
        with pytest.raises(ConfigError, match="another savepoint is being written") as caught:
            raystream.savepoint.write(path, [KeyedState("count", HITS, {"key": ["a"], "value": [2]})])
        refused.append(caught.value.context["path"])

    disk = Interrupted(another_one)
    first = KeyedState("count", HITS, {"key": ["a"], "value": [1]})
    url = raystream.savepoint.write(path, [first], open_fs=lambda _: disk)

    assert refused == [url]
    assert sorted(one.name for one in (tmp_path / "savepoint").iterdir()) == ["_metadata", "count"]
    with raystream.savepoint.open(path) as savepoint:
        assert values_of(savepoint.state("count", "hits").get("a")) == [1]


def test_writer_that_fails_gives_its_directory_back(tmp_path):
    path = str(tmp_path / "savepoint")
    first = KeyedState("count", HITS, {"key": ["a"], "value": [1]})

    def full():
        raise StorageError("disk is full")

    with pytest.raises(StorageError, match="disk is full"):
        raystream.savepoint.write(path, [first], open_fs=lambda _: Interrupted(full))
    assert list((tmp_path / "savepoint").iterdir()) == []
    assert raystream.savepoint.write(path, [first]) == f"file://{path}"


# ---- what no job could restore -------------------------------------------------------


@pytest.mark.parametrize("uid", ["", " ", 5, None, "\ud800", "x" * 161])
def test_uid_that_no_operator_has_is_refused(tmp_path, uid):
    with pytest.raises(GraphError, match="uid"):
        raystream.savepoint.write(str(tmp_path / "s"), [KeyedState(uid, HITS, {"key": ["a"], "value": [1]})])
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("name", [5, b"job", "\ud800"])
def test_job_name_that_no_snapshot_can_hold_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="not a text"):
        raystream.savepoint.write(str(tmp_path / "s"), job_name=name)


def test_timers_of_another_time_are_refused():
    with pytest.raises(StateError, match="no such time"):
        Timers("count", {"key": ["a"], "time_ms": [1]}, domain="wall")


def test_name_of_a_state_that_no_snapshot_can_hold_is_refused():
    with pytest.raises(StateError, match="not UTF-8") as caught:
        ValueStateDescriptor("hits \ud800", int)
    assert caught.value.context["state"] == r"'hits \ud800'"


@pytest.mark.parametrize(
    "rows",
    [
        {"key": ["a"], "value": [1 << 63]},
        pa.Table.from_arrays([["a"], [1], [2]], names=["key", "value", "value"]),
        pa.Table.from_arrays([["a"], ["b"], [2]], names=["key", "key", "value"]),
    ],
    ids=["too large", "values twice", "keys twice"],
)
def test_rows_that_no_table_can_hold_are_refused(tmp_path, rows):
    with pytest.raises(StateError) as caught:
        raystream.savepoint.write(str(tmp_path / "s"), [KeyedState("count", HITS, rows)])
    assert caught.value.context["operator"] == "count"
