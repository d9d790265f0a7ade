"""Frames arrive whole, in order and undamaged, however the bytes are cut, or not at all."""

import struct

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from raystream.errors import ProtocolError
from raystream.handles import SavepointFormat
from raystream.records.elements import (
    WATERMARK_MAX_MS,
    WATERMARK_MIN_MS,
    Active,
    Barrier,
    CancelBarrier,
    EndOfInput,
    Idle,
    SnapshotKind,
    Watermark,
)
from raystream.runtime import frame as frames
from raystream.runtime.frame import (
    FRAME_BYTES_MAX,
    HEADER_BYTES,
    FrameKind,
    FrameReader,
    FrameWriter,
    decode_control,
    encode_control,
)

SENT = [
    (0, FrameKind.BATCH, b"first"),
    (7, FrameKind.CREDIT, b""),
    (2**32 - 1, FrameKind.CONTROL, b"x" * 300),
    (0, FrameKind.BATCH, bytes(range(256))),
]


def stream(sent=SENT, attempt=1):
    writer = FrameWriter(attempt)
    return b"".join(writer.header(channel, kind, payload) + payload for channel, kind, payload in sent)


def read(*pieces, attempt=1):
    reader = FrameReader(attempt)
    return [
        (channel, kind, bytes(payload)) for piece in pieces for channel, kind, payload in reader.feed(piece)
    ]


def test_frames_arrive_as_they_were_sent():
    assert read(stream()) == SENT


def test_frames_arrive_when_cut_at_any_byte():
    data = stream()
    for cut in range(len(data) + 1):
        assert read(data[:cut], data[cut:]) == SENT


def test_frames_arrive_byte_by_byte():
    assert read(*[bytes([byte]) for byte in stream()]) == SENT


def test_small_payload_that_waits_does_not_keep_all_in_memory_that_came_with_it():
    sent = [(0, FrameKind.BATCH, bytes(100_000)), (1, FrameKind.BATCH, b"waits")]
    large, small = FrameReader(1).feed(stream(sent))

    assert bytes(small[2]) == b"waits"
    assert len(small[2].obj) < 100
    assert len(large[2].obj) > 100_000, "a large one is not copied"


@given(
    sent=st.lists(
        st.tuples(st.integers(0, 2**32 - 1), st.sampled_from(FrameKind), st.binary(max_size=50)), max_size=8
    ),
    sizes=st.lists(st.integers(1, 60), min_size=1),
)
def test_frames_arrive_in_pieces_of_any_sizes(sent, sizes):
    data, pieces = stream(sent), []
    while data:
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(data[:size])
        data = data[size:]

    assert read(*pieces) == sent


def test_frame_is_given_out_as_soon_as_it_is_complete():
    data = stream()
    first = HEADER_BYTES + len(SENT[0][2])

    assert read(data[: first - 1]) == []
    assert read(data[:first]) == SENT[:1]


def test_every_damaged_bit_is_noticed():
    data = stream([(3, FrameKind.BATCH, b"payload")])
    for position in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            try:
                arrived = read(bytes(damaged))
            except ProtocolError:
                continue
            assert arrived == []  # A longer length: the rest is still awaited.
            assert position < 4


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_lost_frame_is_noticed(lost):
    writer = FrameWriter(1)
    parts = [writer.header(channel, kind, payload) + payload for channel, kind, payload in SENT]
    del parts[lost]

    with pytest.raises(ProtocolError, match="lost or repeated"):
        read(b"".join(parts))


def test_repeated_frame_is_noticed():
    data = stream(SENT[:1])

    with pytest.raises(ProtocolError, match="lost or repeated"):
        read(data + data)


def test_frame_of_another_attempt_is_refused():
    with pytest.raises(ProtocolError, match="another attempt"):
        read(stream(attempt=1), attempt=2)


def test_frame_that_is_too_long_is_refused_before_anything_is_awaited():
    header = struct.pack("<IIIBQQ", FRAME_BYTES_MAX + 1, 0, 1, FrameKind.BATCH, 0, 0)

    with pytest.raises(ProtocolError, match="too long"):
        read(header)


def test_frame_of_a_kind_that_does_not_exist_is_refused():
    checked = struct.pack("<IIIBQ", 0, 0, 1, 99, 0)

    with pytest.raises(ProtocolError, match="kind that does not exist"):
        read(checked + struct.pack("<Q", xxhash.xxh3_64_intdigest(checked)))


def test_reader_says_how_much_it_waits_for():
    reader = FrameReader(1)
    data = stream([(0, FrameKind.BATCH, b"x" * 1000)])
    reader.feed(data[:5])
    assert reader.wanted_bytes == HEADER_BYTES
    reader.feed(data[5:100])
    assert reader.wanted_bytes == HEADER_BYTES + 1000


def test_header_has_the_documented_form():
    header = FrameWriter(9).header(5, FrameKind.BATCH, b"abc")

    assert header[:21] == struct.pack("<IIIBQ", 3, 5, 9, 1, 0)
    assert header[21:] == struct.pack("<Q", xxhash.xxh3_64_intdigest(header[:21] + b"abc"))
    assert len(header) == frames.HEADER_BYTES


@pytest.mark.parametrize(
    "control",
    [
        Barrier(checkpoint_id=7, kind=SnapshotKind.SAVEPOINT, created_ms=2**41, directory="é", stop=True),
        Barrier(
            checkpoint_id=8,
            kind=SnapshotKind.SAVEPOINT,
            savepoint_format=SavepointFormat.NATIVE,
            created_ms=1,
            directory="x",
        ),
        Barrier(checkpoint_id=1, kind=SnapshotKind.CHECKPOINT, created_ms=0, directory="", routing_epoch=3),
        CancelBarrier(12),
        EndOfInput(),
        Watermark(WATERMARK_MIN_MS),
        Watermark(WATERMARK_MAX_MS),
        Idle(),
        Active(),
    ],
)  # fmt: skip
def test_control_elements_arrive_as_they_are(control):
    assert decode_control(memoryview(encode_control(control))) == control


@pytest.mark.parametrize(
    "payload", [b"", b"\x09", b"\x01", b"\x01\x80", b"\x02\xc0", encode_control(EndOfInput())[:1]]
)
def test_payload_that_is_no_control_element_is_a_protocol_error(payload):
    with pytest.raises(ProtocolError, match="control element does not decode"):
        decode_control(memoryview(payload))
