"""A part has the columns that its rows need, gives only what is asked for, and notices every damage."""

import dataclasses
import datetime as dt
import io
import pickle

import msgspec
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raystream.clock import TimeDomain
from raystream.errors import StateCorruptError, StateRestoreError
from raystream.keygroup import KeyGroupRange
from raystream.keys import KeyGroupCache, encode_key
from raystream.state import canonical_part
from raystream.state.canonical_chunks import chunks_of as chunks_of_table
from raystream.state.canonical_part import FORMAT_VERSION
from raystream.state.canonical_rows import ChunkRows, joined
from raystream.state.descriptor import (
    EVENT_TIMERS,
    ListStateDescriptor,
    MapStateDescriptor,
    ValueStateDescriptor,
)
from raystream.state.ttl import StateTtl
from tests.unit.state.canonical_parts import (
    GROUPS,
    MAX_PARALLELISM,
    TAKEN,
    chunks_of,
    decoded,
    exact_entries,
    written,
)

HITS = ValueStateDescriptor("hits", int)
ENTRIES = {f"user-{n}": n for n in range(200)}


def part_of(descriptor, entries):
    return written(descriptor.info(), chunks_of(descriptor, entries))


def rows_of(descriptor, entries):
    return pq.read_table(io.BytesIO(part_of(descriptor, entries).data)).to_pylist()


def columns_of(descriptor, entries):
    return pq.read_schema(io.BytesIO(part_of(descriptor, entries).data)).names


@pytest.fixture
def small_row_groups(monkeypatch):
    monkeypatch.setattr(canonical_part, "ROW_GROUP_ROWS_WANTED", 10)


# ---- columns ----


def test_values_have_a_row_for_each_key():
    assert rows_of(HITS, {"a": 1, "b": 2}) == [
        {"key_group": 7, "key": "a", "value": 1},
        {"key_group": 7, "key": "b", "value": 2},
    ]


def test_lists_have_a_row_for_each_element_and_maps_for_each_entry():
    assert rows_of(ListStateDescriptor("s", str), {"a": ["x", "y"]}) == [
        {"key_group": 7, "key": "a", "position": 0, "value": "x"},
        {"key_group": 7, "key": "a", "position": 1, "value": "y"},
    ]
    assert rows_of(MapStateDescriptor("s", int, str), {"a": {7: "x", 8: None}}) == [
        {"key_group": 7, "key": "a", "map_key": 7, "value": "x"},
        {"key_group": 7, "key": "a", "map_key": 8, "value": None},
    ]


def test_timers_have_their_time_and_domain():
    timers = MapStateDescriptor(EVENT_TIMERS, tuple, type(None), internal=True)
    plain, of_window = rows_of(timers, {"a": {(10, None): None, (20, (0, 20)): None}})
    assert list(plain) == ["key_group", "key", "time_ms", "domain", "namespace", "namespace_text"]
    assert list(plain.values()) == [7, "a", 10, "event", None, None]
    assert list(of_window.values()) == [7, "a", 20, "event", encode_key((0, 20)), "(0, 20)"]


def test_keys_of_other_types_are_encoded_and_have_a_text():
    rows = rows_of(HITS, {("a", 1): 1, "b": 2})
    assert {row["key_text"] for row in rows} == {"('a', 1)", "'b'"}
    assert columns_of(HITS, {b"x": 1}) == columns_of(HITS, {7: 1}) == ["key_group", "key", "value"]
    assert columns_of(HITS, {2**63: 1}) == ["key_group", "key", "key_text", "value"]


def test_namespace_times_and_what_a_type_does_not_carry_have_columns_of_their_own():
    windows = ValueStateDescriptor("s", int, namespaced=True, ttl=StateTtl(5, time=TimeDomain.EVENT_TIME))
    part = part_of(windows, {("a", "w"): (70, 2**63), ("b", "w"): (71, 2**64), ("c", "w"): (72, 1)})
    table = pq.read_table(io.BytesIO(part.data)).sort_by("written_ms").drop_columns("key_group")
    assert table.drop_columns("value_pickle").to_pydict() == {
        "key": ["a", "b", "c"],
        "namespace": ["w", "w", "w"],
        "value": [None, None, 1],
        "value_msgpack": [msgspec.msgpack.encode(2**63), None, None],
        "written_ms": [70, 71, 72],
    }
    wide = table.column("value_pickle").to_pylist()
    assert [None if value is None else pickle.loads(value) for value in wide] == [None, 2**64, None]
    assert part.open().footer.ttl == "event"


def test_values_without_an_arrow_type_say_in_their_field_how_they_are_encoded():
    for declared, encoding in [(int | str, b"msgpack"), (None, b"pickle"), (int, None)]:
        part = part_of(ValueStateDescriptor("s", declared), {"a": 1})
        field = pq.read_schema(io.BytesIO(part.data)).field("value")
        assert (field.metadata or {}).get(b"raystream.encoding") == encoding


def test_row_that_needs_another_column_late_widens_what_is_written_already(small_row_groups):
    entries = {**ENTRIES, 7: 2**64, ("t", None): 2**63, b"x": 5}
    part = part_of(HITS, entries)
    reader = part.open()
    assert len(reader.footer.row_groups) > 5
    assert reader.schema.names == [
        "key_group", "key", "key_text", "value", "value_msgpack", "value_pickle"
    ]  # fmt: skip
    back = [(stored.group, stored.chunk) for stored in reader.chunks()]
    assert exact_entries(decoded(HITS, back)) == exact_entries(entries)


# ---- the footer ----


def test_footer_says_what_is_in_the_part(small_row_groups):
    footer = part_of(HITS, ENTRIES | {"a long key that is larger than all of the others": 5}).open().footer
    assert (footer.uid, footer.subtask, footer.state.info) == ("u", 0, HITS.info())
    assert (footer.max_parallelism, footer.key_groups) == (MAX_PARALLELISM, (0, MAX_PARALLELISM))
    assert (footer.taken_ms, footer.event_ms) == (TAKEN.processing_ms, TAKEN.event_ms)
    assert (footer.entries, footer.rows) == (201, 201)
    assert len(footer.largest_keys) == 10
    assert footer.largest_keys[0].text == "'a long key that is larger than all of the others'"
    assert footer.largest_keys[0].size_bytes == 51
    assert sum(row_group.rows for row_group in footer.row_groups) == 201


def test_entries_are_keys_and_rows_are_elements():
    footer = part_of(ListStateDescriptor("s", int), {"a": [1, 2, 3], "b": [4]}).open().footer
    assert (footer.entries, footer.rows) == (2, 4)


def test_row_groups_end_with_key_groups(small_row_groups):
    footer = part_of(HITS, ENTRIES).open().footer
    assert len(footer.row_groups) == 8
    assert all(len(row_group.key_groups) == 1 for row_group in footer.row_groups)


def test_a_very_large_key_group_is_cut_between_chunks(small_row_groups, monkeypatch):
    chunks = chunks_of(HITS, ENTRIES)
    part = written(HITS.info(), [(3, chunk) for _, chunk in chunks for _ in range(4)])
    sizes = [row_group.rows for row_group in part.open().footer.row_groups]
    assert len(sizes) > 5
    assert all(40 <= size < 80 for size in sizes[:-1])


def test_state_without_rows_has_no_part():
    assert written(HITS.info(), []) is None


# ---- reading ----


def test_only_row_groups_of_wanted_key_groups_are_read(small_row_groups):
    part, reads = part_of(HITS, ENTRIES), []
    reader = part.open(reads=reads)
    assert reads == [(len(part.data) - part.footer_bytes, part.footer_bytes)]
    found = list(reader.chunks(KeyGroupRange(3, 5)))
    assert {stored.group for stored in found} == {3, 4}
    wanted = reader.footer.row_groups[3:5]
    assert reads[1:] == [(row_group.offset, row_group.length) for row_group in wanted]


def test_a_row_group_of_several_key_groups_gives_those_that_are_wanted():
    reader = part_of(HITS, ENTRIES).open()
    assert len(reader.footer.row_groups) == 1
    for groups in (KeyGroupRange(0, 1), KeyGroupRange(3, 5), KeyGroupRange(7, 8), GROUPS):
        assert {stored.group for stored in reader.chunks(groups)} == set(groups)


def test_row_group_is_read_once_whichever_of_its_key_groups_are_wanted():
    part, reads = part_of(HITS, ENTRIES), []
    reader = part.open(reads=reads)
    groups = {0, 2, 3, 7}
    rows = list(reader.chunks(groups))
    assert len(reads) == 2, "the footer and the row group"
    assert [stored.group for stored in rows] == sorted(groups)
    for group in groups:
        assert [stored for stored in rows if stored.group == group] == list(reader.chunks({group}))


@dataclasses.dataclass
class Visit:
    path: str | None
    days: dict[dt.date, tuple[int, dt.timedelta | None]]
    marks: list[set[int]] | None = None


def test_nested_values_of_some_key_groups_are_those_of_their_keys():
    descriptor = MapStateDescriptor("s", int, list[Visit | None])
    day, delta = dt.date(2024, 2, 29), dt.timedelta(milliseconds=1)
    entries = {
        f"key {n}": {
            0: [Visit(f"p{n}", {day: (n, delta)}, [{n}, set()]), None, Visit(None, {}, None)],
            1: None,
            2: [],
            3: [Visit("x", {day: (n, None), day - dt.timedelta(1): (2**63, delta)}, [])] * (n % 3),
        }
        for n in range(40)
    }
    reader = part_of(descriptor, entries).open()
    assert len(reader.footer.row_groups) == 1
    assert str(reader.schema.field("value").type).startswith("list<")
    for groups in (KeyGroupRange(0, 1), KeyGroupRange(3, 5), KeyGroupRange(7, 8), GROUPS):
        back = decoded(descriptor, [(stored.group, stored.chunk) for stored in reader.chunks(groups)])
        assert back == {key: entries[key] for key in back}
        assert set(back) == {key for key in entries if KeyGroupCache(MAX_PARALLELISM)[key] in groups}


PART = part_of(MapStateDescriptor("s", None, dict[str, int]), {
    key: {"x": {"p": n}, n: {}} for n, key in enumerate(["a", 7, ("t", 1.5), b"\1", "\udc80"])
})  # fmt: skip


def read_all(data):
    return list(PART.open(data).chunks())


@given(st.integers(0, len(PART.data) - 1), st.integers(1, 255))
@settings(max_examples=300, deadline=None)
def test_any_flipped_byte_is_noticed(position, flip):
    damaged = bytearray(PART.data)
    damaged[position] ^= flip
    with pytest.raises(StateCorruptError) as error:
        read_all(bytes(damaged))
    assert error.value.context["path"] == "u/s/part-0.parquet"


@given(st.integers(0, len(PART.data) - 1))
@settings(deadline=None)
def test_any_truncation_is_noticed(length):
    with pytest.raises(StateCorruptError):
        read_all(PART.data[:length])


def test_newer_version_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(canonical_part, "FORMAT_VERSION", FORMAT_VERSION + 1)
    part = part_of(HITS, {"a": 1})
    monkeypatch.undo()
    with pytest.raises(StateRestoreError, match="newer raystream") as error:
        part.open()
    assert "\n" not in error.value.message


# ---- tables ----


def test_tables_of_several_chunks_become_one_and_chunks_again():
    made = ChunkRows(HITS.info())
    chunks = chunks_of(HITS, {**ENTRIES, 7: 2**64})
    table = joined(made.columns, [made.rows(group, chunk).table for group, chunk in chunks])
    assert len(table) == 201
    assert table.schema.names == ["key_group", "key", "key_text", "value", "value_pickle"]
    assert made.columns.empty().schema.names == ["key_group", "key", "value"]
    back = [(stored.group, stored.chunk) for stored in chunks_of_table(made.columns, table)]
    assert exact_entries(decoded(HITS, back)) == exact_entries({**ENTRIES, 7: 2**64})


def test_rows_that_are_not_sorted_by_key_group_are_refused():
    made = ChunkRows(HITS.info())
    tables = [made.rows(group, chunk).table for group, chunk in reversed(chunks_of(HITS, ENTRIES))]
    with pytest.raises(StateCorruptError, match="rows of a savepoint cannot be read"):
        list(chunks_of_table(made.columns, joined(made.columns, tables)))
