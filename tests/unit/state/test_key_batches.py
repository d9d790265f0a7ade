"""Keys of a batch are encoded and decoded as they are one by one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raystream.errors import StateCorruptError
from raystream.keys import canonical_key, decode_key, encode_key, stable_hash
from raystream.state.key_batches import decode_keys, encode_keys
from tests.unit import key_samples

texts = st.text(st.characters() | st.sampled_from("\0\1\2\ud800é"))
batches = st.lists(texts) | st.lists(st.text("ab\0\1")) | st.lists(key_samples.keys.map(canonical_key))


@given(batches, st.integers(1, 32_768))
def test_batch_is_encoded_as_its_keys_are_one_by_one(keys, max_parallelism):
    encoded, groups = encode_keys(keys, max_parallelism)
    assert encoded == list(map(encode_key, keys))
    assert groups == [stable_hash(key) % max_parallelism for key in keys]


ALIKE = st.lists(st.text(st.characters(codec=None))) | st.lists(st.integers(0, 2**64))


@given(st.lists(key_samples.keys, max_size=5) | ALIKE)
def test_many_keys_are_decoded_as_one_by_one(some):
    encoded = list(map(encode_key, some))
    one_by_one = list(map(decode_key, encoded))
    assert list(map(key_samples.exact, decode_keys(encoded))) == list(map(key_samples.exact, one_by_one))


@pytest.mark.parametrize(
    "encoded",
    [
        [b""],
        [encode_key("a"), b""],
        [encode_key(1), b""],
        [b"\3a\0\3b\0", b"\3c\0"],
        [b"\3a", b"\3b\0\0"],
        [b"\3\xff\0"],
        [b"\x1a"],
        [encode_key("a"), encode_key("b")[:-1]],
    ],
)
def test_damage_among_many_keys_is_noticed(encoded):
    with pytest.raises(StateCorruptError):
        decode_keys(encoded)
