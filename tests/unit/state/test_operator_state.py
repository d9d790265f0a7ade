"""Operator state gives back its elements in order and notices every damage."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raystream.errors import StateCorruptError, StateRestoreError
from raystream.state import operator_state
from raystream.state.operator_state import FORMAT_VERSION, decode_elements, encode_elements


@given(st.lists(st.binary()))
def test_elements_come_back_in_order(elements):
    assert decode_elements(encode_elements(elements)) == elements


@given(st.lists(st.binary()), st.data())
def test_any_damage_is_noticed(elements, data):
    blob = bytearray(encode_elements(elements))
    position = data.draw(st.integers(0, len(blob) - 1))
    with pytest.raises(StateCorruptError):
        decode_elements(bytes(blob[:position]))
    blob[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises((StateCorruptError, StateRestoreError)):
        decode_elements(bytes(blob))


def test_newer_version_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(operator_state, "FORMAT_VERSION", FORMAT_VERSION + 1)
    blob = encode_elements([b"a"])
    monkeypatch.undo()
    with pytest.raises(StateRestoreError, match="newer raystream") as error:
        decode_elements(blob)
    assert "\n" not in error.value.message
