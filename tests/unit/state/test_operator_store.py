"""Operator state is stored by its declared types, and comes back only as what was declared."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest

from raystream.errors import KeyTypeError, StateCorruptError, StateError
from raystream.handles import Redistribution, StateInfo
from raystream.state import chunk_codec
from raystream.state.descriptor import ListStateDescriptor, MapStateDescriptor
from raystream.state.operator_store import OperatorStore
from raystream.state.registry import Verdict
from raystream.state.ttl import StateTtl


@dataclass(frozen=True)
class Position:
    file: str
    offset: int = 0


class Opaque:
    def __init__(self, content):
        self.content = content

    def __eq__(self, other):
        return isinstance(other, Opaque) and self.content == other.content

    __hash__ = None


def restored(store):
    """Return a store that is restored from what another one holds."""
    states = store.snapshot()
    return OperatorStore(
        {state.name: state.elements for state in states},
        [state.info for state in states],
        is_restored=True,
    )


def verdicts(store):
    return {match.name: match.verdict for match in store.restored_states()}


@pytest.mark.parametrize(
    ("element_type", "elements"),
    [
        (int, [1, -(2**80), 0]),
        (str, ["a", "\ud800", ""]),
        (Position, [Position("a", 7), Position("b")]),
        (None, [Opaque([1]), {"any": ("thing", None)}, 3]),
        (datetime, [datetime(2026, 1, 2, tzinfo=UTC)]),
        (list[int], [[], [1, 2]]),
    ],
)
@pytest.mark.parametrize("union", [False, True])
def test_elements_of_every_type_come_back_in_order(element_type, elements, union):
    descriptor = ListStateDescriptor("elements", element_type)
    store = OperatorStore()
    store.list_state(descriptor, union=union).add_all(elements)

    again = restored(store)

    assert again.list_state(descriptor, union=union).get() == elements
    assert verdicts(again) == {"elements": Verdict.MATCHED}


def test_every_element_of_a_list_is_stored_by_itself():
    store = OperatorStore()
    store.list_state(ListStateDescriptor("split", int)).add_all([1, 2, 3])
    store.list_state(ListStateDescriptor("all", int), union=True).add_all([1, 2])
    store.raw_state("raw").add_all([b"one", b"two"])
    store.broadcast_state(MapStateDescriptor("rules", str, int)).put_all({"a": 1, "b": 2})

    states = {state.name: state for state in store.snapshot()}

    assert {name: (state.mode, len(state.elements)) for name, state in states.items()} == {
        "split": (Redistribution.SPLIT, 3),
        "all": (Redistribution.UNION, 2),
        "raw": (Redistribution.SPLIT, 2),
        "rules": (Redistribution.BROADCAST, 1),
    }
    assert states["raw"].elements == [b"one", b"two"]
    assert [(name, state.info.kind, state.info.schema) for name, state in states.items()] == [
        ("split", "operator-list", "int"),
        ("all", "operator-union", "int"),
        ("raw", "operator-raw", "bytes"),
        ("rules", "operator-broadcast", "int"),
    ]


def test_registered_state_that_is_never_touched_is_in_the_snapshot():
    store = OperatorStore()
    store.list_state(ListStateDescriptor("elements", int))
    store.broadcast_state(MapStateDescriptor("rules", str, int))

    again = restored(store)

    assert verdicts(again) == {"elements": Verdict.MISSING, "rules": Verdict.MISSING}


def test_broadcast_map_comes_back_with_none_and_keys_in_canonical_form():
    rules = MapStateDescriptor("rules")
    store = OperatorStore()
    state = store.broadcast_state(rules)
    state.put(True, None)
    state[("a", 2)] = "pair"
    state["text"] = 2**70

    again = restored(store).broadcast_state(rules)

    assert dict(again.items()) == {1: None, ("a", 2): "pair", "text": 2**70}
    assert True in again
    assert sorted(map(type, again.keys()), key=repr) == [int, str, tuple]
    with pytest.raises(KeyTypeError):
        again.put([], 1)


def test_broadcast_map_has_the_forms_of_a_map():
    state = OperatorStore().broadcast_state(MapStateDescriptor("rules", str, int))
    state.put_all([("a", 1), ("b", 2)])
    state["c"] = 3
    del state["b"]
    state.remove("never there")

    assert (len(state), "a" in state, state.contains("b"), state.get("b", 7)) == (2, True, False, 7)
    assert (list(state), list(state.values()), state["c"]) == (["a", "c"], [1, 3], 3)
    for key in state:
        state.remove(key)
    assert state.is_empty()
    with pytest.raises(KeyError):
        del state["a"]
    with pytest.raises(KeyError):
        state["a"]


def test_view_sees_every_change_and_makes_none():
    state = OperatorStore().broadcast_state(MapStateDescriptor("rules", str, int))
    view = state.view()
    state["a"] = 1

    assert (view["a"], "a" in view, dict(view.items()), len(view)) == (1, True, {"a": 1}, 1)
    for change in (
        lambda: view.put("a", 2),
        lambda: view.put_all({}),
        lambda: view.remove("a"),
        view.clear,
        lambda: view.__setitem__("a", 2),
        lambda: view.__delitem__("a"),
    ):
        with pytest.raises(StateError, match="can only be read") as raised:
            change()
        assert raised.value.context == {"state": "rules"}
    state.clear()
    assert view.is_empty()


def test_list_that_was_handed_out_is_not_the_state():
    state = OperatorStore().list_state(ListStateDescriptor("elements", int))
    state.add(1)
    state.get().append(2)
    given = [5]
    state.update(given)
    given.append(6)

    assert state.get() == [5]


@pytest.mark.parametrize("change", ["add", "add_all", "update"])
def test_none_is_no_element_and_raw_state_holds_bytes_alone(change):
    store = OperatorStore()
    elements, raw = store.list_state(ListStateDescriptor("elements", int)), store.raw_state("raw")
    elements.add(1)
    raw.add(b"1")
    wrap = (lambda value: value) if change == "add" else (lambda value: [value])

    with pytest.raises(StateError, match="None as an element"):
        getattr(elements, change)(wrap(None))
    for wrong in ("text", bytearray(b"1"), 1):
        with pytest.raises(StateError, match="something else than bytes"):
            getattr(raw, change)(wrap(wrong))
    with pytest.raises(StateError, match="None as an element"):
        raw.update(None)

    assert (elements.get(), raw.get()) == ([1], [b"1"])


def test_one_name_for_two_states_is_refused_and_for_the_same_one_gives_it_again():
    store = OperatorStore()
    state = store.list_state(ListStateDescriptor("name", int))

    assert store.list_state(ListStateDescriptor("name", int)) is state
    for again in (
        lambda: store.list_state(ListStateDescriptor("name", str)),
        lambda: store.list_state(ListStateDescriptor("name", int), union=True),
        lambda: store.raw_state("name"),
        lambda: store.broadcast_state(MapStateDescriptor("name", str, int)),
    ):
        with pytest.raises(StateError, match="registered twice"):
            again()


def test_time_to_live_is_refused():
    with pytest.raises(StateError, match="no time to live"):
        OperatorStore().list_state(ListStateDescriptor("elements", int, ttl=StateTtl("1s")))


def test_element_of_another_type_fails_the_snapshot_and_names_the_state():
    store = OperatorStore()
    store.list_state(ListStateDescriptor("elements", int)).add("text")

    with pytest.raises(StateError, match="declared type") as raised:
        store.snapshot()

    assert raised.value.context == {"state": "elements", "declared": "int", "found": "str"}


@pytest.mark.parametrize(
    ("register", "problem"),
    [
        (lambda store: store.list_state(ListStateDescriptor("s", str)), "schema was 'int', is 'str'"),
        (
            lambda store: store.list_state(ListStateDescriptor("s", int), union=True),
            "kind was 'operator-list', is 'operator-union'",
        ),
        (lambda store: store.raw_state("s"), "kind was 'operator-list', is 'operator-raw'"),
        (
            lambda store: store.list_state(ListStateDescriptor("s")),
            "serializer was 'msgpack-1', is 'pickle-1'",
        ),
    ],
)
def test_stored_state_that_does_not_fit_begins_empty_and_is_reported(register, problem):
    store = OperatorStore()
    store.list_state(ListStateDescriptor("s", int)).add(1)
    again = restored(store)

    state = register(again)

    assert state.get() == []
    (match,) = again.restored_states()
    assert (match.verdict, match.problem) == (Verdict.DIFFERENT, problem)


def union(descriptor):
    return lambda store: store.list_state(descriptor, union=True)


def broadcast(*types):
    return lambda store: store.broadcast_state(MapStateDescriptor("s", *types))


@pytest.mark.parametrize(
    ("stored", "registered", "problem"),
    [
        (
            union(ListStateDescriptor("s", int)),
            union(ListStateDescriptor("s", str)),
            "schema was 'int', is 'str'",
        ),
        (
            union(ListStateDescriptor("s", int)),
            lambda store: store.list_state(ListStateDescriptor("s", int)),
            "kind was 'operator-union', is 'operator-list'",
        ),
        (broadcast(str, int), broadcast(str, str), "schema was 'int', is 'str'"),
        (broadcast(str, int), broadcast(int, int), "map key schema was 'str', is 'int'"),
        (broadcast(str, int), broadcast(str), "serializer was 'msgpack-1', is 'pickle-1'"),
        (
            lambda store: store.raw_state("s"),
            lambda store: store.list_state(ListStateDescriptor("s", bytes)),
            "kind was 'operator-raw', is 'operator-list'",
        ),
    ],
)
def test_union_broadcast_and_raw_state_that_does_not_fit_begins_empty_and_is_reported(
    stored, registered, problem
):
    store = OperatorStore()
    state = stored(store)
    if hasattr(state, "put"):
        state.put("a", 1)
    else:
        state.add(b"1" if "raw" in problem else 1)
    again = restored(store)

    empty = registered(again)

    assert empty.is_empty() if hasattr(empty, "is_empty") else empty.get() == []
    (match,) = again.restored_states()
    assert (match.verdict, match.problem) == (Verdict.DIFFERENT, problem)


def test_element_that_is_too_large_fails_the_snapshot_and_names_state_and_size(monkeypatch):
    monkeypatch.setattr(chunk_codec, "VALUE_BYTES_MAX", 1000)
    for large in (union(ListStateDescriptor("s", str)), broadcast(str, str)):
        store = OperatorStore()
        state = large(store)
        state.put("k", "x" * 1001) if hasattr(state, "put") else state.add("x" * 1001)

        with pytest.raises(StateError, match="too large") as raised:
            store.snapshot()

        assert (raised.value.context["state"], raised.value.context["size_bytes"]) == ("s", 1004)


def test_elements_evolve_and_are_migrated_as_those_of_keyed_state():
    store = OperatorStore()
    store.list_state(ListStateDescriptor("s", int)).add_all([1, 2])

    state = restored(store).list_state(ListStateDescriptor("s", str, migrate=str))

    assert state.get() == ["1", "2"]


def test_migration_that_fails_is_reported_like_every_other_misfit():
    store = OperatorStore()
    store.list_state(ListStateDescriptor("s", int)).add(1)
    again = restored(store)

    again.list_state(ListStateDescriptor("s", str, migrate=lambda value: value.no_such_field))

    assert verdicts(again) == {"s": Verdict.DIFFERENT}


def test_state_of_raystreams_own_and_keyed_state_are_not_its_business():
    keyed = StateInfo(name="hits", kind="value", serializer="msgpack-1", schema="int")

    assert OperatorStore({"_splits": [b"split"]}, [keyed]).restored_states() == ()


def test_state_that_is_not_registered_can_be_dropped():
    store = OperatorStore()
    store.list_state(ListStateDescriptor("s", int)).add(1)
    again = restored(store)

    assert verdicts(again) == {"s": Verdict.MISSING}
    assert [info.name for info in again.drop_unregistered()] == ["s"]
    assert again.restored_states() == ()
    assert again.snapshot() == []


def test_damaged_element_is_noticed():
    info = OperatorStore()
    info.list_state(ListStateDescriptor("s", int))
    (state,) = info.snapshot()

    with pytest.raises(StateCorruptError, match="empty"):
        OperatorStore({"s": [b""]}, [state.info]).list_state(ListStateDescriptor("s", int))


STORED = [
    (ListStateDescriptor("s", int), "operator-list", b"\x01\x92\x91\x00\x91\x91\x01", [1]),
    (
        ListStateDescriptor("s"),
        "operator-union",
        b"\x05\x92\x91\x00\x91\x91\xc4\x14\x80\x05\x95\t\x00\x00\x00\x00\x00\x00\x00\x8c\x01a\x94K\x01\x86\x94.",
        [("a", 1)],
    ),
    (
        MapStateDescriptor("s", str, int),
        "operator-broadcast",
        b"\x01\x92\x91\x00\x91\x82\xa1a\x01\xa1b\xc0",
        {"a": 1, "b": None},
    ),
    (
        MapStateDescriptor("s", None, int),
        "operator-broadcast",
        b"\x11\x92\x91\x00\x91\x81\xc4\x07`\x03a\x00\x1a\x01\x00\x01",
        {("a", 1): 1},
    ),
]


@pytest.mark.parametrize(("descriptor", "kind", "element", "expected"), STORED)
def test_elements_that_earlier_versions_wrote_are_read(descriptor, kind, element, expected):
    store = OperatorStore({"s": [element]}, [replace(descriptor.info(), kind=kind)])
    if kind == "operator-broadcast":
        assert dict(store.broadcast_state(descriptor).items()) == expected
    else:
        assert store.list_state(descriptor, union=kind == "operator-union").get() == expected
    assert verdicts(store) == {"s": Verdict.MATCHED}
