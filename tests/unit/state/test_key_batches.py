"""Keys of a batch are encoded as they are one by one."""

from hypothesis import given
from hypothesis import strategies as st

from raystream.keys import canonical_key, encode_key, stable_hash
from raystream.state.key_batches import encode_keys
from tests.unit import key_samples

texts = st.text(st.characters() | st.sampled_from("\0\1\2\ud800é"))
batches = st.lists(texts) | st.lists(st.text("ab\0\1")) | st.lists(key_samples.keys.map(canonical_key))


@given(batches, st.integers(1, 32_768))
def test_batch_is_encoded_as_its_keys_are_one_by_one(keys, max_parallelism):
    encoded, groups = encode_keys(keys, max_parallelism)
    assert encoded == list(map(encode_key, keys))
    assert groups == [stable_hash(key) % max_parallelism for key in keys]
