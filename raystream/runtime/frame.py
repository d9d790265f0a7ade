"""Frames: how payloads of many channels travel on one connection between two slots.

    length u32 | channel u32 | attempt u32 | kind u8 | sequence u64 | checksum u64 | payload

Little-endian; `length` counts the payload and is bounded before anything is allocated;
`sequence` counts the frames of one direction of a connection from 0 and is given when the
frame is written; `checksum` is xxh3-64 of the header before it and the payload.  A gap,
another attempt or a wrong checksum is a `ProtocolError`: the attempt fails, nothing is
silently sent again.
"""

import struct
from enum import IntEnum

import msgspec
import xxhash

from raystream.errors import ProtocolError
from raystream.records.elements import (
    Active,
    Barrier,
    CancelBarrier,
    Control,
    EndOfInput,
    Idle,
    Watermark,
)

FRAME_BYTES_MAX = 1 << 30
"""Largest payload of one frame."""

_PINNED_RATIO_MAX = 4
"""A payload that may have to wait keeps at most this many times its size in memory; a smaller part of
what was received with it is copied."""

_HEADER = struct.Struct("<IIIBQQ")
_CHECKED = struct.Struct("<IIIBQ")
HEADER_BYTES = _HEADER.size


class FrameKind(IntEnum):
    """What the payload of a frame is."""

    BATCH = 1
    CONTROL = 2
    CREDIT = 3
    """A u64: bytes that the receiver has consumed since its last grant."""


_KINDS = {kind.value: kind for kind in FrameKind}

Frame = tuple[int, FrameKind, memoryview]
"""Channel, kind and payload."""


class FrameWriter:
    """Numbers and packs the frames of one direction of a connection."""

    def __init__(self, attempt: int) -> None:
        self._attempt = attempt
        self._sequence = 0

    def header(self, channel: int, kind: int, payload: bytes) -> bytes:
        """Return the header for the next frame; the payload must follow it on the wire."""
        checked = _CHECKED.pack(len(payload), channel, self._attempt, kind, self._sequence)
        self._sequence += 1
        digest = xxhash.xxh3_64(checked)
        digest.update(payload)
        return checked + digest.intdigest().to_bytes(8, "little")


class FrameReader:
    """Checks and takes apart the frames of one direction of a connection."""

    def __init__(self, attempt: int) -> None:
        self._attempt = attempt
        self._sequence = 0
        self._buffer = bytearray()

    def feed(self, data: bytes | bytearray | memoryview) -> list[Frame]:
        """Take in bytes and return the frames that are complete.

        Raises:
            ProtocolError: a frame is too long, out of sequence, of another attempt or damaged.
        """
        self._buffer += data
        buffer = bytes(self._buffer) if len(self._buffer) >= self.wanted_bytes else None
        if buffer is None:
            return []
        view, position, frames = memoryview(buffer), 0, []
        while len(buffer) - position >= HEADER_BYTES:
            length, channel, attempt, kind, sequence, checksum = _HEADER.unpack_from(buffer, position)
            self._check(length, attempt, sequence)
            end = position + HEADER_BYTES + length
            if end > len(buffer):
                break
            payload = view[position + HEADER_BYTES : end]
            if length * _PINNED_RATIO_MAX < len(buffer):
                payload = memoryview(bytes(payload))
            digest = xxhash.xxh3_64(view[position : position + _CHECKED.size])
            digest.update(payload)
            if digest.intdigest() != checksum:
                raise ProtocolError("checksum of a frame does not match", channel=channel, sequence=sequence)
            self._sequence += 1
            if kind not in _KINDS:
                raise ProtocolError("frame of a kind that does not exist", channel=channel, kind=kind)
            frames.append((channel, _KINDS[kind], payload))
            position = end
        del self._buffer[:position]
        return frames

    @property
    def wanted_bytes(self) -> int:
        """Bytes that the buffer must hold before the next frame is complete."""
        if len(self._buffer) < HEADER_BYTES:
            return HEADER_BYTES
        (length,) = struct.unpack_from("<I", self._buffer)
        return HEADER_BYTES + (length if length <= FRAME_BYTES_MAX else 0)

    def _check(self, length: int, attempt: int, sequence: int) -> None:
        if length > FRAME_BYTES_MAX:
            raise ProtocolError("frame is too long", length=length, length_max=FRAME_BYTES_MAX)
        if attempt != self._attempt:
            raise ProtocolError("frame of another attempt", attempt=attempt, expected=self._attempt)
        if sequence != self._sequence:
            raise ProtocolError("frames were lost or repeated", sequence=sequence, expected=self._sequence)


_CONTROL_TAGS: dict[int, type[Control]] = {
    1: Barrier,
    2: CancelBarrier,
    3: EndOfInput,
    4: Watermark,
    5: Idle,
    6: Active,
}
_TAG_OF_CONTROL = {cls: tag for tag, cls in _CONTROL_TAGS.items()}


def encode_control(control: Control) -> bytes:
    """Return the payload of a control element."""
    return bytes([_TAG_OF_CONTROL[type(control)]]) + msgspec.msgpack.encode(control)


def decode_control(payload: memoryview) -> Control:
    """Return the control element of a payload.

    Raises:
        ProtocolError: the payload is not one of `encode_control`.
    """
    try:
        return msgspec.msgpack.decode(payload[1:], type=_CONTROL_TAGS[payload[0]])
    except (msgspec.MsgspecError, KeyError, IndexError) as error:
        raise ProtocolError("control element does not decode", cause=repr(error)) from error
