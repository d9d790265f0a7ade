"""Entries are told apart by their stored values, which need not be decoded for that."""

import pytest

from raystream.errors import StateCorruptError
from raystream.keys import encode_key
from raystream.state.chunk_codec import ChunkCodec
from raystream.state.chunk_entries import entries_of_key, entry_digests, entry_sizes, key_of
from raystream.state.chunk_form import Chunk
from raystream.state.descriptor import ListStateDescriptor, MapStateDescriptor, ValueStateDescriptor


def chunk_of(descriptor, entries):
    (chunk,) = ChunkCodec(descriptor).encode(list(entries), list(entries.values()))
    return chunk


def digests(descriptor, entries):
    return dict(entry_digests(chunk_of(descriptor, entries), descriptor.info()))


@pytest.mark.parametrize(
    ("descriptor", "one", "same", "other"),
    [
        (ValueStateDescriptor("s", int), 1, 1, 2),
        (ValueStateDescriptor("s"), {"a": 1}, {"a": 1}, {"a": 2}),
        (ListStateDescriptor("s", str), ["a", "bc"], ["a", "bc"], ["ab", "c"]),
        (ListStateDescriptor("s", str), ["a", "b"], ["a", "b"], ["b", "a"]),
        (MapStateDescriptor("s", str, int), {"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 2, "b": 1}),
        (ValueStateDescriptor("s", dict[str, int]), {"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 2, "b": 1}),
        (ValueStateDescriptor("s", set[int]), {1, 33}, {33, 1}, {1, 34}),
    ],
)
def test_digests_are_equal_when_values_are(descriptor, one, same, other):
    assert digests(descriptor, {"k": one}) == digests(descriptor, {"k": same})
    assert digests(descriptor, {"k": one}) != digests(descriptor, {"k": other})


@pytest.mark.parametrize("namespaced", [False, True])
def test_entries_of_one_key_are_a_chunk_of_their_own(namespaced):
    descriptor = ValueStateDescriptor("s", int, namespaced=namespaced)
    entries = {("a", "w1"): 1, ("b", "w1"): 2, ("a", "w2"): 3} if namespaced else {"a": 1, "b": 2}
    chunk = chunk_of(descriptor, entries)

    part = entries_of_key(chunk, descriptor.info(), encode_key("a"))

    sizes = list(entry_sizes(part, descriptor.info()))
    assert part.entries == len(sizes) == (2 if namespaced else 1)
    assert {key_of(key, descriptor.info()) for key, _ in sizes} == {"a"}
    assert entries_of_key(chunk, descriptor.info(), encode_key("c")) is None


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x92\x90\x91\x01"])
def test_chunk_that_is_not_what_its_form_says_is_corrupt(data):
    info = ValueStateDescriptor("s", int).info()
    for look in (
        lambda chunk: list(entry_sizes(chunk, info)),
        lambda chunk: entries_of_key(chunk, info, b"k"),
    ):
        with pytest.raises(StateCorruptError):
            look(Chunk(0, 1, data))
