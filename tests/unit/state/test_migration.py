"""Values can be read by their stored schema alone, without the classes that they had."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raystream.errors import StateRestoreError
from raystream.state.chunk_codec import ChunkCodec
from raystream.state.chunk_decoder import ChunkDecoder
from raystream.state.descriptor import ListStateDescriptor, MapStateDescriptor, ValueStateDescriptor
from raystream.state.serializer import KEPT_TYPES
from tests.unit.state.test_serializer import KEYS, TYPED


def migrated(stored, registered, entries):
    """Return entries as they are restored when the declaration has changed."""
    decoder = ChunkDecoder(registered, stored.info())
    restored = {}
    for chunk in ChunkCodec(stored).encode(list(entries), list(entries.values())):
        restored.update(zip(*decoder.decode(chunk), strict=True))
    return restored


@pytest.mark.parametrize(("declared", "schema", "values"), TYPED, ids=[schema for _, schema, _ in TYPED])
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_migrate_gets_plain_data_from_which_the_old_value_could_be_built(declared, schema, values, data):
    entries = {key: data.draw(values) for key in data.draw(KEYS)}
    registered = ValueStateDescriptor("x", migrate=lambda old: ("migrated", old))
    restored = migrated(ValueStateDescriptor("x", declared), registered, entries)
    assert restored.keys() == entries.keys()
    for key, (mark, old) in restored.items():
        assert mark == "migrated"
        assert msgspec.convert(old, declared, builtin_types=KEPT_TYPES) == entries[key]


def test_lists_and_map_values_are_migrated_one_by_one_and_none_in_a_map_is_kept():
    lists = migrated(
        ListStateDescriptor("x", int), ListStateDescriptor("x", str, migrate=str), {"k": [1, 2**70]}
    )
    assert lists == {"k": ["1", str(2**70)]}
    maps = migrated(
        MapStateDescriptor("x", None, int),
        MapStateDescriptor("x", None, str, migrate=str),
        {"k": {"a": 1, ("b", 2): None}},
    )
    assert maps == {"k": {"a": "1", ("b", 2): None}}


def test_migration_that_returns_none_is_a_restore_error():
    with pytest.raises(StateRestoreError, match="does not have the declared type"):
        migrated(ValueStateDescriptor("x", int), ValueStateDescriptor("x", migrate=lambda _: None), {"k": 1})


def test_failing_migration_names_the_state_and_shows_the_value():
    with pytest.raises(StateRestoreError, match=r"migrate function raised.*'hits'.*3.*ZeroDivisionError"):
        migrated(
            ValueStateDescriptor("hits", int),
            ValueStateDescriptor("hits", str, migrate=lambda old: old / 0),
            {"k": 3},
        )
