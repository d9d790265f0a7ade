"""A savepoint that is written from tables, alone or on the base of another snapshot."""

import dataclasses
import datetime as dt
from datetime import timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

import raystream.savepoint
from raystream import (
    AggregatingStateDescriptor,
    ListStateDescriptor,
    MapStateDescriptor,
    ReducingStateDescriptor,
    StateTtl,
    ValueStateDescriptor,
)
from raystream.errors import ConfigError, StateCorruptError, StateError, StateRestoreError
from raystream.savepoint import KeyedState, OperatorState, Timers
from raystream.savepoint.difference import differences
from raystream.savepoint.rows import values_of
from tests.unit.savepoint.jobs import BOMB, KEYS, UID, Total, Visit, copied, key_of, snapshot

HITS = ValueStateDescriptor("hits", int)
NAIVE = dt.datetime(2026, 1, 31, 12, 30, 0, 5)  # noqa: DTZ001
KINDS = ["heap", "rocksdb", "native", "canonical"]


@pytest.fixture
def write(tmp_path):
    """Write a savepoint into a directory of its own and return it, open."""
    opened = []

    def one(*states, **more):
        path = raystream.savepoint.write(str(tmp_path / f"savepoint-{len(opened)}"), states, **more)
        opened.append(raystream.savepoint.open(path))
        return opened[-1]

    yield one
    for savepoint in opened:
        savepoint.close()


def differing(first, second):
    return [one.state for one in differences(first.reader, second.reader) if not one.same]


def test_a_path_as_base_and_a_single_state_are_refused_with_advice(tmp_path):
    state = KeyedState("count", HITS, {"key": ["/"], "value": [1]})

    with pytest.raises(StateError, match=r"raystream\.savepoint\.open"):
        raystream.savepoint.write(str(tmp_path / "new"), [state], base=str(tmp_path))
    with pytest.raises(StateError, match=r"\[state\]"):
        raystream.savepoint.write(str(tmp_path / "new"), state)


# ---- on a base ------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_base_without_changes_is_the_same_state_in_canonical_form(write, kind):
    base_path = snapshot(kind)
    BOMB.unlink(missing_ok=True)
    with raystream.savepoint.open(base_path) as base:
        written = write(base=base)

        assert differing(base, written) == []
        assert (written.job_id, written.job_name, written.kind) == (base.job_id, base.job_name, "savepoint")
        assert written.checkpoint_id == base.checkpoint_id
        assert [op.uid for op in written.operators()] == [op.uid for op in base.operators()]
        assert written.operator(UID).parallelism == 2
        assert written.reader.metadata.enumerators == base.reader.metadata.enumerators
        assert len(list(Path(written.path.removeprefix("file://")).rglob("*.parquet"))) > 10
    assert not BOMB.exists(), "a value was unpickled"


@pytest.mark.parametrize("kind", ["rocksdb", "canonical"])
def test_table_of_a_state_takes_its_place(write, kind):
    with raystream.savepoint.open(snapshot(kind)) as base:
        hits = base.state(UID, "hits").to_arrow()
        more = pa.array([value + 100 for value in hits.column("value").to_pylist()])
        hits = hits.set_column(hits.column_names.index("value"), "value", more)
        written = write(KeyedState(UID, "hits", hits), base=base)

        assert differing(base, written) == ["hits"]
        assert values_of(written.state(UID, "hits").get(key_of(3))) == [103]


def test_every_table_that_was_read_can_be_written_again(write):
    with raystream.savepoint.open(snapshot("heap")) as base:
        given = []
        for state in base.operator(UID).states:
            if state.name.startswith("_timers_"):
                given.append(Timers(UID, state.to_arrow(), domain=state.name.removeprefix("_timers_")))
            elif state.keyed:
                given.append(KeyedState(UID, state.name, state.to_arrow()))
            else:
                given.append(OperatorState(UID, state.name, state.to_arrow()))
        written = write(*given, base=base)

        assert differing(base, written) == []
        times = [snapshot.state(UID, "lived").to_arrow().column("written_ms") for snapshot in (base, written)]
        assert sorted(times[0].to_pylist()) == sorted(times[1].to_pylist())


def test_states_and_operators_are_dropped(write):
    with raystream.savepoint.open(snapshot("heap")) as base:
        written = write(base=base, drop=[(UID, "paths"), (UID, "rules"), "source"])

    assert "paths" not in [state.name for state in written.operator(UID).states]
    assert "rules" not in [state.name for state in written.operator(UID).states]
    assert [operator.uid for operator in written.operators()] == [UID, "sink"]
    assert "source" not in written.reader.metadata.enumerators


@pytest.mark.parametrize("what", ["nobody", (UID, "nothing"), ("nobody", "hits")])
def test_dropping_what_is_not_there_is_an_error(write, what):
    with (
        raystream.savepoint.open(snapshot("heap")) as base,
        pytest.raises(StateRestoreError, match="not in the base"),
    ):
        write(base=base, drop=[what])


def test_state_is_added_beside_those_of_the_base(write):
    extra = KeyedState(UID, MapStateDescriptor("extra", str, int), {
        "key": [key_of(0), key_of(1), key_of(1)], "map_key": ["a", "a", "b"], "value": [1, 2, 3],
    })  # fmt: skip
    with raystream.savepoint.open(snapshot("canonical")) as base:
        written = write(extra, base=base)

        assert differing(base, written) == ["extra"]
    rows = written.state(UID, "extra").get(key_of(1))
    assert dict(zip(rows.column("map_key").to_pylist(), values_of(rows), strict=True)) == {"a": 2, "b": 3}


def test_damaged_base_leaves_nothing_behind(tmp_path):
    path, files = copied(snapshot("heap"), tmp_path)
    for file in files:
        file.write_bytes(file.read_bytes()[:100] + b"x" + file.read_bytes()[101:])

    with raystream.savepoint.open(path) as base, pytest.raises(StateCorruptError):
        raystream.savepoint.write(str(tmp_path / "new"), base=base)

    assert [file for file in (tmp_path / "new").rglob("*") if file.is_file()] == []


# ---- from nothing ---------------------------------------------------------------


def test_every_kind_of_state_is_made_of_a_table(write):
    written = write(
        KeyedState("a", HITS, {"key": ["x", "y"], "value": [1, 2]}),
        KeyedState("a", ListStateDescriptor("list", str), {"key": ["x", "y", "x"], "value": ["1", "2", "3"]}),
        KeyedState("a", ReducingStateDescriptor("max", max, float), {"key": ["x"], "value": [1]}),
        KeyedState(
            "a", AggregatingStateDescriptor("total", Total(), list[int]), {"key": ["x"], "value": [[1, 2]]}
        ),
        KeyedState("a", ValueStateDescriptor("visit", Visit), {
            "key": ["x"], "value": [{"path": "/", "seconds": 2.5}],
        }),
        KeyedState("a", ValueStateDescriptor("any"), {"key": ["x"], "value": [5]}),
        Timers("a", {"key": ["x", "x"], "time_ms": [10, 20]}),
        Timers("a", {"key": ["x"], "time_ms": [10]}, domain="processing"),
        OperatorState("b", ListStateDescriptor("positions", int), {"value": [1, 2, 3]}),
        OperatorState("b", ListStateDescriptor("all", int), {"value": [4]}, union=True),
        OperatorState("b", MapStateDescriptor("rules", int, str), {"map_key": [1, 2], "value": ["a", "b"]}),
        OperatorState("b", "raw", {"value": [b"\0"]}),
        job_name="new",
        max_parallelism=32,
    )  # fmt: skip

    assert written.job_name == "new"
    assert written.operator("a").max_parallelism == 32
    found = {
        state.name: (state.kind, state.type, state.entries)
        for op in written.operators()
        for state in op.states
    }
    assert found == {
        "hits": ("value", "int", 2),
        "list": ("list", "str", 2),
        "max": ("reducing", "float", 1),
        "total": ("aggregating", "list[int]", 1),
        "visit": ("value", "Visit{path: str, seconds?: float}", 1),
        "any": ("value", "", 1),
        "_timers_event": ("map", "None", 1),
        "_timers_processing": ("map", "None", 1),
        "positions": ("operator-list", "int", 3),
        "all": ("operator-union", "int", 1),
        "rules": ("operator-broadcast", "str", 1),
        "raw": ("operator-raw", "bytes", 1),
    }
    assert values_of(written.state("a", "list").get("x")) == ["1", "3"]
    assert str(values_of(written.state("a", "any").get("x"))[0]).startswith("<pickle, ")
    assert written.state("a", "_timers_event").get("x").column("time_ms").to_pylist() == [10, 20]


KEYS_OF_ALL_TYPES = [
    "",
    "\udc80",
    b"\0",
    0,
    -1,
    2**70,
    1.5,
    dt.date(2026, 1, 1),
    ("a", None, ("b", 1)),
    NAIVE,
]


def test_keys_of_every_type_are_found_again(write):
    written = write(KeyedState("a", HITS, {"key": KEYS_OF_ALL_TYPES, "value": range(len(KEYS_OF_ALL_TYPES))}))

    assert [values_of(written.state("a", "hits").get(key)) for key in KEYS_OF_ALL_TYPES] == [
        [n] for n in range(len(KEYS_OF_ALL_TYPES))
    ]


def test_arrow_columns_are_cast_where_nothing_is_lost(write):
    key = pa.StructArray.from_arrays([pa.array(["a", "b"]), pa.array([1, 2], pa.int8())], ["x", "y"])
    rows = pa.table({"key": key, "value": pa.array([1, 2], pa.uint16())})
    times = pa.array([NAIVE, NAIVE])

    written = write(
        KeyedState("a", HITS, rows),
        KeyedState("a", ValueStateDescriptor("share", float), {
            "key": [1], "value": pa.array([1], pa.int32()),
        }),
        KeyedState("a", ValueStateDescriptor("at", dt.datetime), {"key": [1, 2], "value": times}),
        KeyedState("a", ValueStateDescriptor("utc", dt.datetime), {
            "key": [1], "value": pa.array([NAIVE.replace(tzinfo=dt.UTC)]),
        }),
        KeyedState("a", ValueStateDescriptor("counts", dict[str, int]), {
            "key": [1], "value": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
        }),
    )  # fmt: skip

    assert values_of(written.state("a", "hits").get(("b", 2))) == [2]
    assert values_of(written.state("a", "share").get(1)) == [1.0]
    assert values_of(written.state("a", "at").get(1)) == [NAIVE.isoformat()]
    assert values_of(written.state("a", "utc").get(1)) == [NAIVE.replace(tzinfo=dt.UTC)]
    assert values_of(written.state("a", "counts").get(1)) == [[("a", 1)]]


def test_time_of_writing_is_now_unless_the_table_says_it(write):
    lives = ValueStateDescriptor("lives", int, ttl=StateTtl(timedelta(days=1)))

    written = write(KeyedState("a", lives, {"key": [1, 2], "value": [1, 2], "written_ms": [5, None]}))

    rows = written.state("a", "lives").to_arrow().to_pylist()
    times = {row["key"]: row["written_ms"] for row in rows}
    assert times == {1: 5, 2: written.created_ms}


def test_empty_state_and_empty_savepoint_are_savepoints(write):
    assert write().operators() == ()
    assert write(KeyedState("a", HITS, {"key": [], "value": []})).state("a", "hits").entries == 0


def test_hundreds_of_states_are_listed(write):
    written = write(*(
        KeyedState("a", ValueStateDescriptor(f"state {n}/..", int), {"key": [n], "value": [n]})
        for n in range(300)
    ))  # fmt: skip

    assert len(written.operator("a").states) == 300
    assert {size.entries for size in written.operator("a").count().values()} == {1}
    assert values_of(written.state("a", "state 299/..").get(299)) == [299]


def test_elements_are_dealt_out_to_the_subtasks_of_the_base(write):
    with raystream.savepoint.open(snapshot("heap")) as base:
        written = write(
            OperatorState(UID, "positions", {"value": [1, 2, 3]}),
            OperatorState(UID, "rules", {"map_key": ["limit"], "value": [8]}),
            base=base,
        )

    assert written.state(UID, "positions").to_arrow().select(["subtask", "value"]).to_pydict() == {
        "subtask": [0, 1, 1], "value": [1, 2, 3],
    }  # fmt: skip
    assert written.state(UID, "rules").to_arrow().to_pydict() == {
        "subtask": [0, 1], "map_key": ["limit", "limit"], "value": [8, 8],
    }  # fmt: skip


# ---- what does not fit ----------------------------------------------------------


@dataclasses.dataclass
class Fault:
    """A table that does not fit, and what is told of it."""

    state: object
    rows: object
    what: str
    where: dict


VISIT = ValueStateDescriptor("visit", Visit)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(HITS, {"key": ["a"]}, "lacks a column", {"column": "value"}),
        Fault(HITS, {"kee": ["a"], "value": [1]}, "column that the state does not have", {"column": "kee"}),
        Fault(HITS, {"key": ["a", "b", "a"], "value": [1, 2, 3]}, "entry twice", {"row": 2, "first_row": 0}),
        Fault(HITS, {"key": [1, 1.0], "value": [1, 2]}, "an entry twice", {"column": "key", "row": 1}),
        Fault(HITS, {"key": ["a", None], "value": [1, 2]}, "stable encoding", {"row": 1}),
        Fault(HITS, {"key": ["a", object()], "value": [1, 2]}, "no stable encoding", {"row": 1}),
        Fault(HITS, {"key": ["a"], "value": ["1"]}, "type that the state does not", {"column": "value"}),
        Fault(HITS, {"key": ["a", "b"], "value": [1, 2.5]}, "a type that the state does not take", {}),
        Fault(HITS, {"key": ["a", "b"], "value": [1, None]}, "has no value", {"column": "value", "row": 1}),
        Fault(
            HITS, {"key": ["a", "b"], "value": pa.array([1, 2**63], pa.uint64())}, "does not fit", {"row": 1}
        ),
        Fault(
            VISIT,
            {"key": ["a", "b"], "value": [{"path": "/", "seconds": 1.0}, {"path": None, "seconds": 1.0}]},
            "does not have the type",
            {"column": "value", "row": 1},
        ),
        Fault(VISIT, {"key": ["a"], "value": [{"path": "/"}]}, "a type that the state does not take", {}),
        Fault(
            ListStateDescriptor("list", int), {"key": ["a", "a"], "value": [1, 2], "position": [3, 3]},
            "an entry twice", {"column": "position", "row": 1},
        ),
        Fault(
            MapStateDescriptor("map", str, int), {"key": ["a", "a"], "map_key": ["x", "x"], "value": [1, 2]},
            "an entry twice", {"column": "map_key", "row": 1},
        ),
        Fault(HITS, 7, "rows are no table", {"given": "int"}),
        Fault(HITS, {"key": ["a", "b"], "value": [1]}, "rows are no table", {}),
    ],
    ids=lambda fault: fault.what,
)  # fmt: skip
def test_table_that_does_not_fit_is_told_with_operator_state_column_and_row(write, tmp_path, fault):
    with pytest.raises(StateError, match=fault.what) as error:
        write(KeyedState("a", fault.state, fault.rows))

    context = error.value.context
    assert (context["operator"], context["state"]) == ("a", fault.state.name)
    assert {name: context[name] for name in fault.where} == fault.where
    assert list(tmp_path.iterdir()) == []


def test_state_that_only_has_a_name_must_be_in_the_base(write):
    with pytest.raises(StateError, match="not declared"):
        write(KeyedState("a", "hits", {"key": ["a"], "value": [1]}))


def test_state_is_given_once(write):
    rows = {"key": ["a"], "value": [1]}
    with pytest.raises(StateError, match="given twice"):
        write(KeyedState("a", HITS, rows), KeyedState("a", HITS, rows))


def test_directory_with_a_savepoint_is_not_written_to(write, tmp_path):
    write(KeyedState("a", HITS, {"key": ["a"], "value": [1]}))

    with pytest.raises(ConfigError, match="a savepoint in the directory"):
        raystream.savepoint.write(str(tmp_path / "savepoint-0"))


def test_savepoint_is_written_to_any_store():
    rows = {"key": ["a"], "value": [1]}
    path = raystream.savepoint.write("memory://savepoints/one", [KeyedState("a", HITS, rows)])

    with raystream.savepoint.open("memory://savepoints/one/_metadata") as written:
        assert written.path == path == "memory://savepoints/one"
        assert values_of(written.state("a", "hits").get("a")) == [1]


def test_other_tools_read_what_was_written(write):
    keys = [f"/{n}" for n in range(KEYS)]
    written = write(KeyedState("count hits", HITS, {"key": keys, "value": range(KEYS)}))
    files = f"{written.path.removeprefix('file://')}/count%20hits/hits/*.parquet"

    (row,) = duckdb.sql(f"select count(*), sum(value), max(key_group) < 128 from '{files}'").fetchall()

    assert row == (KEYS, sum(range(KEYS)), True)
    assert duckdb.sql(f"select value from '{files}' where key = '/7'").fetchall() == [(7,)]
