"""Records in flight are stored with all that is known of them, and bad bytes are found."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from raystream.errors import CheckpointError, StateCorruptError, StateRestoreError
from raystream.records.batch import RowBatch
from raystream.state.channel_state import FORMAT_VERSION, decode_slice, encode_slice

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / f"channel-state-{FORMAT_VERSION}.bin"


@dataclass(frozen=True)
class Hit:
    path: str
    size: int


def parts(batch):
    return batch.values, batch.timestamps, batch.keys, batch.groups


BATCHES = [
    RowBatch([("a", 1), ("b", 2)], [10, 20], ["a", "b"], [7, 100]),
    RowBatch([1.5, None, "x", b"y", 1 << 80]),
    RowBatch([{"n": [1, 2]}], None, [(1, "k")], [3]),
]


def test_batches_come_back_as_they_were():
    batches = [*BATCHES, RowBatch([Hit("/a", 1)]), RowBatch([Hit("/b", 2), Hit("/c", 3)])]

    assert list(map(parts, decode_slice(encode_slice(batches), "there"))) == list(map(parts, batches))


def test_every_slice_is_read_alone():
    first, second = encode_slice([RowBatch([Hit("/a", 1)])]), encode_slice([RowBatch([Hit("/b", 2)])])

    assert decode_slice(second, "there")[0].values == [Hit("/b", 2)]
    assert decode_slice(first, "there")[0].values == [Hit("/a", 1)]


def test_stored_format_is_read():
    assert list(map(parts, decode_slice(GOLDEN.read_bytes(), "golden"))) == list(map(parts, BATCHES))


def test_record_that_does_not_pickle_is_an_error_that_says_what_to_do():
    with pytest.raises(CheckpointError, match="cannot be stored") as caught:
        encode_slice([RowBatch([lambda: None])])
    assert "unaligned" in caught.value.hint


def test_every_flipped_bit_and_cut_is_found():
    data = encode_slice(BATCHES)
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1
        with pytest.raises((StateCorruptError, StateRestoreError)):
            decode_slice(bytes(changed), "there")
        with pytest.raises((StateCorruptError, StateRestoreError)):
            decode_slice(data[:position], "there")
