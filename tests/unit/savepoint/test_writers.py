"""Of several writers of savepoints into one directory one succeeds, and nobody harms it."""

import pytest

import raystream.savepoint
from raystream import ValueStateDescriptor
from raystream.errors import ConfigError, StorageError
from raystream.savepoint import KeyedState
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
