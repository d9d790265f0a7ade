"""Schemas say whether a stored value can be read as the type that a new program declares."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raystream.errors import StateCorruptError
from raystream.state.descriptor import ListStateDescriptor, MapStateDescriptor, ValueStateDescriptor
from raystream.state.schema import difference, parse, readable
from tests.unit.state.test_serializer import TYPED


@pytest.mark.parametrize("schema", [schema for _, schema, _ in TYPED])
def test_every_schema_that_is_written_can_be_read(schema):
    assert parse(schema)
    assert readable(schema, schema + " | None")


@pytest.mark.parametrize(
    ("stored", "registered"),
    [
        ("int", "int"),
        ("", ""),
        ("int", "int | None"),
        ("int | str", "str | None | int"),
        ("list[int]", "list[int | str]"),
        ("V{a: int, b: str}", "V{a: int}"),
        ("V{a: int}", "V{b?: str, a: int}"),
        ("V{b: int, a: int}", "V{a: int | None, b: int}"),
        ('V{"a b": int}', 'V{"a b": int, c?: int}'),
        ("dict[str, V{a: int}]", "dict[str, V{a: int, b?: int}]"),
        ('C("red")', 'C("red", "blue")'),
        ("T{children: list[T]}", "T{children: list[T], new?: int}"),
    ],
)
def test_what_is_the_same_or_wider_is_readable(stored, registered):
    assert readable(stored, registered)


@pytest.mark.parametrize(
    ("stored", "registered"),
    [
        ("int", "str"),
        ("int", ""),
        ("", "int"),
        ("int", "float"),
        ("int | None", "int"),
        ("list[int]", "set[int]"),
        ("tuple[int]", "tuple[int, int]"),
        ("tuple[int, ...]", "tuple[int, int]"),
        ("V{a: int}", "V{a: str}"),
        ("V{a: int}", "V{a: int, b: int}"),
        ("V{a: int}", "V"),
        ("V{a: int}", "W{a: int}"),
        ('C("red", "blue")', 'C("red")'),
        ("C(1)", 'C("1")'),
    ],
)
def test_what_could_not_hold_a_stored_value_is_not_readable(stored, registered):
    assert not readable(stored, registered)


@pytest.mark.parametrize(
    ("stored", "registered", "field"),
    [
        (ValueStateDescriptor("x", int), ListStateDescriptor("x", int), "kind"),
        (ValueStateDescriptor("x", int), ValueStateDescriptor("x"), "serializer"),
        (ValueStateDescriptor("x", int), ValueStateDescriptor("x", str), "schema"),
        (ValueStateDescriptor("x", int), ValueStateDescriptor("x", int, namespaced=True), "namespaced"),
        (MapStateDescriptor("x", int, str), MapStateDescriptor("x", str, str), "map_key_schema"),
    ],
)
def test_difference_is_named_by_its_field(stored, registered, field):
    assert difference(stored.info(), stored.info()) == ""
    assert difference(stored.info(), registered.info()) == field


def test_migration_accepts_another_type_and_serializer_but_not_another_kind():
    stored = ValueStateDescriptor("x", int).info()
    for registered in (ValueStateDescriptor("x", str), ValueStateDescriptor("x")):
        assert difference(stored, registered.info(), migrates=True) == ""
    assert difference(stored, ListStateDescriptor("x", int).info(), migrates=True) == "kind"


@pytest.mark.parametrize(
    "text", ["", "[", "int]", "int |", "a b", "V{a}", "V{a: int", 'C("', "C(x)", "x" + "[x" * 500]
)
def test_text_outside_the_grammar_is_corrupt(text):
    with pytest.raises(StateCorruptError):
        parse(text)


@given(st.text('int[]{}(),:|?" .a-1', max_size=30))
def test_any_text_parses_or_is_corrupt(text):
    with contextlib.suppress(StateCorruptError):
        parse(text)
