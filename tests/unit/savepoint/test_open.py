"""Every snapshot is seen alike, whatever wrote it, and nothing of it is run."""

import os
import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raystream.savepoint
from raystream.errors import ConfigError, StateCorruptError, StateError, StateRestoreError
from raystream.savepoint import export
from raystream.savepoint.rows import Pickled, values_of
from tests.unit.savepoint.jobs import BOMB, KEYS, UID, EveryState, copied, key_of, snapshot

KINDS = ["heap", "rocksdb", "native", "canonical"]


@pytest.fixture(params=KINDS)
def opened(request):
    path = snapshot(request.param)
    BOMB.unlink(missing_ok=True)  # A job that restores the values loads them.
    with raystream.savepoint.open(path) as savepoint:
        yield savepoint
    assert not BOMB.exists(), "a value was unpickled"


def by_key(table):
    return dict(zip(table.column("key_text").to_pylist(), values_of(table), strict=True))


def test_metadata_of_the_snapshot_are_told(opened):
    assert opened.job_name == "every state"
    assert opened.kind in ("checkpoint", "savepoint")
    assert opened.created.utcoffset().total_seconds() == 0
    assert [operator.name for operator in opened.operators()] == ["numbers", "count visits", "nowhere"]
    assert opened.operator(UID).parallelism == 2
    assert opened.operator(UID).max_parallelism == 16


def test_every_state_has_its_kind_and_type(opened):
    found = {
        state.name: (state.kind, state.map_key_type, state.type) for state in opened.operator(UID).states
    }

    assert found == {
        "_timers_event": ("map", "", "None"),
        "_timers_processing": ("map", "", "None"),
        "hits": ("value", "", "int"),
        "paths": ("list", "", "Visit{path: str, seconds?: float}"),
        "by day/hour": ("map", "str", "float"),
        "longest": ("reducing", "", "int"),
        "total": ("aggregating", "", "list[int]"),
        "bomb": ("value", "", ""),
        "lived": ("value", "", "str"),
        "never": ("value", "", "int"),
        "positions": ("operator-list", "", "int"),
        "all": ("operator-union", "", "str"),
        "rules": ("operator-broadcast", "str", "int"),
        "raw": ("operator-raw", "", "bytes"),
    }


def test_keyed_state_is_a_table_with_a_row_for_each_value_element_or_entry(opened):
    shown = {repr(key_of(n)): n for n in range(KEYS)}

    assert by_key(opened.state(UID, "hits").to_arrow()) == shown
    assert by_key(opened.state(UID, "longest").to_arrow()) == shown
    assert by_key(opened.state(UID, "total").to_arrow()) == {key: [1, n] for key, n in shown.items()}
    paths = opened.state(UID, "paths").to_arrow()
    assert paths.column("position").to_pylist() == [0, 1] * KEYS
    assert sorted(values_of(paths), key=repr) == sorted(
        [{"path": f"/{n}", "seconds": n / 2} for n in range(KEYS)] + [{"path": "/", "seconds": 0.0}] * KEYS,
        key=repr,
    )
    days = opened.state(UID, "by day/hour").to_arrow()
    assert sorted(set(days.column("map_key").to_pylist())) == ["monday", "tuesday"]
    assert len(days) == 2 * KEYS


def test_rows_are_sorted_by_key_group(opened):
    groups = opened.state(UID, "hits").to_arrow().column("key_group").to_pylist()

    assert groups == sorted(groups)
    assert set(groups) <= set(range(16))


def test_timers_and_times_of_writing_are_columns(opened):
    timers = opened.state(UID, "_timers_event").to_arrow()
    lived = opened.state(UID, "lived").to_arrow()

    assert sorted(timers.column("time_ms").to_pylist()) == [10**15 + n for n in range(KEYS)]
    assert set(timers.column("domain").to_pylist()) == {"event"}
    assert lived.column("written_ms").null_count == 0


def test_state_without_entries_has_its_columns(opened):
    assert opened.state(UID, "never").to_arrow().to_pydict() == {"key_group": [], "key": [], "value": []}


def test_operator_state_has_the_subtask_beside_each_element(opened):
    assert opened.state(UID, "positions").to_arrow().to_pydict() == {
        "subtask": [0, 0, 1, 1], "position": [0, 1, 2, 3], "value": [0, 10, 1, 11],
    }  # fmt: skip
    assert opened.state(UID, "all").to_arrow().column("value").to_pylist() == ["of 0", "of 1"]
    assert opened.state(UID, "rules").to_arrow().to_pydict() == {
        "subtask": [0, 1], "map_key": ["limit", "limit"], "value": [7, 7],
    }  # fmt: skip
    assert opened.state(UID, "raw").to_arrow().column("value").to_pylist() == [b"\0raw"] * 2


@pytest.mark.parametrize("number", [0, 1, KEYS - 1])
def test_state_of_one_key_is_found_by_the_key_as_the_program_has_it(opened, number):
    key = key_of(number)

    assert values_of(opened.state(UID, "hits").get(key)) == [number]
    assert [value["path"] for value in values_of(opened.state(UID, "paths").get(key))] == [f"/{number}", "/"]
    assert len(opened.state(UID, "hits").get(("k", KEYS, b"\xff"))) == 0


def test_pickled_values_are_shown_by_size_and_class(opened):
    (value,) = values_of(opened.state(UID, "bomb").get(key_of(1)))

    assert isinstance(value, Pickled)
    assert str(value) == f"<pickle, {len(value.data)} bytes, {EveryState.__module__}._explode>"


def test_count_tells_entries_bytes_and_the_ten_largest_keys(opened):
    counted = opened.operator(UID).count()

    assert {name: size.entries for name, size in counted.items()} == {
        name: 0 if name in ("never", "_timers_processing") else KEYS for name in counted
    }
    assert all(size.size_bytes > 0 for size in counted.values() if size.entries)
    assert opened.state(UID, "paths").count().entries == KEYS
    largest = counted["paths"].largest
    assert len(largest) == 10
    assert largest == sorted(largest, key=lambda large: -large.size_bytes)
    assert largest[0].text.startswith("('k', ")


def test_export_writes_the_whole_state_to_one_parquet_file(opened, tmp_path):
    out = tmp_path / "paths.parquet"

    assert opened.state(UID, "paths").export(out) == 2 * KEYS
    assert pq.read_table(out).to_pylist() == opened.state(UID, "paths").to_arrow().to_pylist()
    assert [file.name for file in tmp_path.iterdir()] == ["paths.parquet"]


def test_export_takes_the_place_of_no_device(opened, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match="cannot be written"):
        opened.state(UID, "paths").export(pipe)
    assert pipe.is_fifo()


def test_export_through_a_link_goes_where_that_leads(opened, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "there")
    opened.state(UID, "paths").export(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert pq.read_table(tmp_path / "there").num_rows == 2 * KEYS


def test_row_group_of_an_export_holds_a_bounded_number_of_bytes(opened, tmp_path, monkeypatch):
    out = tmp_path / "paths.parquet"
    opened.state(UID, "paths").export(out)
    assert pq.ParquetFile(out).num_row_groups == 1

    monkeypatch.setattr(export, "ROW_GROUP_BYTES_WANTED", 1)
    opened.state(UID, "paths").export(out)
    assert pq.ParquetFile(out).num_row_groups > 1


def test_export_does_not_write_into_the_snapshot(tmp_path):
    copy, _ = copied(snapshot("canonical"), tmp_path)
    (tmp_path / "link").symlink_to(copy)
    before = {path: path.read_bytes() for path in Path(copy).rglob("*") if path.is_file()}
    part = next(path for path in before if path.name == "part-0.parquet").relative_to(copy)

    with raystream.savepoint.open(copy) as savepoint:
        for directory in (Path(copy), tmp_path / "link"):
            with pytest.raises(ConfigError, match="belongs to the snapshot"):
                savepoint.state(UID, "hits").export(directory / part)
    assert {path: path.read_bytes() for path in Path(copy).rglob("*") if path.is_file()} == before


def test_two_exports_to_one_file_do_not_mix(tmp_path):
    table = pa.table({"key": ["a", "b"]})
    out = tmp_path / "out.parquet"

    def while_another_one_writes():
        yield table
        export.export_rows(table.schema, [table.slice(0, 1)], out)
        assert len(pq.read_table(out)) == 1

    export.export_rows(table.schema, while_another_one_writes(), out)
    assert len(pq.read_table(out)) == 2
    assert list(tmp_path.iterdir()) == [out]


def test_operator_state_is_exported_too(opened, tmp_path):
    opened.state(UID, "rules").export(tmp_path / "rules.parquet")

    assert pq.read_table(tmp_path / "rules.parquet").column("value").to_pylist() == [7, 7]


def test_what_is_not_there_is_told_with_what_is(opened):
    with pytest.raises(StateRestoreError, match="no operator of this uid") as error:
        opened.operator("visit")
    assert "'visits'" in error.value.hint
    with pytest.raises(StateRestoreError, match="no state of this name") as error:
        opened.state(UID, "hit")
    assert "'hits'" in error.value.hint


def test_local_copies_are_gone_after_close():
    with raystream.savepoint.open(snapshot("rocksdb")) as savepoint:
        savepoint.state(UID, "hits").to_arrow()
        local = Path(savepoint.reader._temporary.name)
        assert any(local.iterdir())

    assert not local.exists()


def test_closed_snapshot_is_not_read_any_more():
    with raystream.savepoint.open(snapshot("rocksdb")) as savepoint:
        state = savepoint.state(UID, "hits")

    with pytest.raises(StateError, match="snapshot is closed"):
        state.to_arrow()


def test_copies_of_files_are_told_of_until_all_bytes_are_there():
    told = []
    with raystream.savepoint.open(snapshot("rocksdb"), progress=lambda *step: told.append(step)) as savepoint:
        savepoint.state(UID, "hits").to_arrow()

    assert {what for what, _, _ in told} == {"copying"}
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert told[-1][1] == told[-1][2]


def test_reading_of_all_state_is_told_of():
    told = []
    with raystream.savepoint.open(snapshot("heap"), progress=lambda *step: told.append(step)) as savepoint:
        savepoint.state(UID, "hits").get(key_of(1))
        assert told == []
        savepoint.operator(UID).count()

    assert {what for what, _, _ in told} == {"reading"}


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_told_with_the_file(kind, tmp_path):
    path, files = copied(snapshot(kind), tmp_path)
    for file in files:
        damaged = bytearray(file.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        file.write_bytes(damaged)

    with raystream.savepoint.open(path) as savepoint, pytest.raises(StateCorruptError) as error:
        [state.to_arrow() for state in savepoint.operator(UID).states]

    assert any(str(file) in error.value.context["path"] for file in files)


@pytest.mark.parametrize("kind", KINDS)
def test_missing_file_is_told_with_its_name(kind, tmp_path):
    path, files = copied(snapshot(kind), tmp_path)
    for file in files:
        file.unlink()

    with raystream.savepoint.open(path) as savepoint, pytest.raises(StateCorruptError) as error:
        savepoint.state(UID, "hits").to_arrow()

    assert any(str(file) in error.value.context["path"] for file in files)


def test_class_of_a_pickle_is_told_without_loading_it():
    assert str(Pickled(pickle.dumps({1: 2}, 5))).endswith("bytes, dict>")
    assert str(Pickled(b"no pickle")) == "<pickle, 9 bytes>"
    assert str(Pickled(pickle.dumps(Path("x"), 5))).endswith("bytes, pathlib.PosixPath>")
