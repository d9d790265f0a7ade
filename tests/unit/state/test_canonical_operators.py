"""Operator state comes out of a part of a canonical savepoint as it went in."""

import io
import tempfile

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raystream.errors import StateCorruptError
from raystream.handles import Redistribution
from raystream.state.canonical_operators import (
    OperatorPartHead,
    operator_table,
    read_operator_part,
    write_operator_part,
)
from raystream.state.descriptor import ListStateDescriptor, MapStateDescriptor
from raystream.state.operator_state import OperatorState, encode_elements
from raystream.state.operator_store import OperatorStore
from raystream.state.stored import stored_elements
from tests.unit.state.canonical_parts import exact
from tests.unit.state.test_serializer import INTS, TEXTS, TYPED, Opaque

HEAD = OperatorPartHead(uid="u", subtask=0, max_parallelism=8, taken_ms=5)
PATH = "u/s/part-0.parquet"


def part_of(state):
    part = write_operator_part(HEAD, state, tempfile.TemporaryFile)
    data = b"".join(part.pieces())
    part.close()
    return data


def round_trip(store):
    """Return a store that is restored from the parts of another one."""
    states = store.snapshot()
    elements = {state.name: read_operator_part(part_of(state), PATH) for state in states}
    assert {name: len(found) for name, found in elements.items()} == {
        state.name: len(state.elements) for state in states
    }
    return OperatorStore(elements, [state.info for state in states], is_restored=True)


@pytest.mark.parametrize(("declared", "values"), [(d, v) for d, _, v in TYPED], ids=[s for _, s, _ in TYPED])
@settings(deadline=None, max_examples=10)
@given(data=st.data())
def test_elements_and_maps_of_every_type_come_back(declared, values, data):
    if "None" in str(declared):
        values = values.filter(lambda value: value is not None)
    store = OperatorStore()
    elements = data.draw(st.lists(values, max_size=5))
    rules = data.draw(st.dictionaries(TEXTS | INTS, st.none() | values, max_size=3))
    lists, maps = ListStateDescriptor("s", declared), MapStateDescriptor("m", None, declared)
    store.list_state(lists).update(elements)
    store.broadcast_state(maps).put_all(rules)
    again = round_trip(store)
    assert [exact(value) for value in again.list_state(lists).get()] == [exact(value) for value in elements]
    assert dict(again.broadcast_state(maps).items()) == rules


def test_pickled_and_raw_elements_come_back():
    store = OperatorStore()
    store.list_state(ListStateDescriptor("u"), union=True).update([Opaque(1), 2**70, "x"])
    store.broadcast_state(MapStateDescriptor("m")).put_all({("a", 1): Opaque(2), "b": None})
    store.raw_state("r").update([b"", b"\xff"])
    again = round_trip(store)
    assert again.list_state(ListStateDescriptor("u"), union=True).get() == [Opaque(1), 2**70, "x"]
    assert dict(again.broadcast_state(MapStateDescriptor("m")).items()) == {("a", 1): Opaque(2), "b": None}
    assert again.raw_state("r").get() == [b"", b"\xff"]


def test_elements_of_both_forms_keep_their_order():
    store = OperatorStore()
    numbers = [1, 2**70, 2, 2**63, 2**71, 3]
    store.list_state(ListStateDescriptor("s", int)).update(numbers)
    (state,) = store.snapshot()
    table = operator_table(state.info, state.elements)
    assert table.column("value").to_pylist() == [1, None, 2, None, None, 3]
    assert table.column("position").to_pylist() == [0, 1, 2, 3, 4, 5]
    assert table.column("value_msgpack")[3].as_py() == msgspec.msgpack.encode(2**63)
    assert round_trip(store).list_state(ListStateDescriptor("s", int)).get() == numbers


def test_map_of_operator_state_has_a_column_for_its_keys():
    store = OperatorStore()
    store.broadcast_state(MapStateDescriptor("m", str, int)).put_all({"a": 1, "b": None})
    (state,) = store.snapshot()
    assert operator_table(state.info, state.elements).to_pydict() == {
        "map_key": ["a", "b"],
        "value": [1, None],
    }


def test_elements_are_read_from_a_part_as_from_a_blob():
    state = OperatorState(name="s", mode=Redistribution.SPLIT, elements=[b"a", b"b"])
    assert stored_elements(encode_elements(state.elements), PATH) == stored_elements(part_of(state), PATH)


@pytest.mark.parametrize("data", [b"PAR1", b"PAR1" + bytes(100) + b"PAR1"])
def test_what_is_no_part_is_refused_with_its_name(data):
    with pytest.raises(StateCorruptError) as caught:
        stored_elements(data, PATH)
    assert caught.value.context["path"] == PATH


def test_parquet_of_somebody_else_is_refused():
    file = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}), file)
    with pytest.raises(StateCorruptError, match="cannot be read"):
        read_operator_part(file.getvalue(), PATH)
