"""One data connection: the handshake, then frames in both directions.

    dialer                                    acceptor
      | -- hello: magic, version, job, attempt, from, to, nonce ----> |
      | <- challenge: nonce, HMAC("acceptor", hello, both nonces) --- |
      | -- proof: HMAC("dialer", hello, both nonces) ---------------> |
      | <=========================== frames ========================> |

Both sides prove that they hold the attempt's secret before the other decodes a byte of payload.
Knows one socket and its selector; who may connect is decided by `raystream.runtime.tcp`.
"""

import contextlib
import hmac
import os
import selectors
import socket
import struct
from collections import deque
from itertools import islice

from raystream.errors import ConnectionLostError, ProtocolError
from raystream.ids import SlotId
from raystream.runtime.frame import FrameKind, FrameReader, FrameWriter
from raystream.runtime.links import LinkIdentity

_MAGIC = b"RAYSTRM\x00"
_VERSION = 1
_HELLO = struct.Struct("<8sH32sIII32s")
_NONCE_BYTES = 32
_MAC_BYTES = 32
_BUFFERS_PER_WRITE_MAX = 64
DIALER_HANDSHAKE_BYTES = _HELLO.size + _MAC_BYTES
ACCEPTOR_HANDSHAKE_BYTES = _NONCE_BYTES + _MAC_BYTES
"""What each side sends before its first frame."""


class Connection:
    """One socket: handshake, then frames in both directions."""

    def __init__(
        self,
        sock: socket.socket,
        selector: selectors.BaseSelector,
        identity: LinkIdentity,
        *,
        peer: SlotId | None,
    ) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.peer = peer
        self.dialed = peer is not None
        self.established = False
        self._selector = selector
        self._identity = identity
        self._reader = FrameReader(identity.attempt)
        self._writer = FrameWriter(identity.attempt)
        self._out: deque[memoryview] = deque()
        self._handshake = bytearray()
        self._nonce = os.urandom(_NONCE_BYTES)
        self._hello = b""
        self._expected_proof = b""
        self._registered_events = selectors.EVENT_READ
        if peer is not None:
            self._hello = _HELLO.pack(
                _MAGIC, _VERSION, identity.job_id.encode(), identity.attempt, identity.slot, peer, self._nonce
            )
            self._out.append(memoryview(self._hello))
            self._registered_events |= selectors.EVENT_WRITE
        selector.register(sock, self._registered_events, self)

    def send_frame(self, channel: int, kind: FrameKind, payload: bytes) -> None:
        """Queue a frame and write what the socket takes now."""
        idle = not self._out
        self._out.append(memoryview(self._writer.header(channel, kind, payload)))
        if payload:
            self._out.append(memoryview(payload))
        if idle:
            self.write()

    def write(self) -> None:
        """Write what the socket takes; watch for more room only while something is left."""
        while self._out:
            try:
                written = self.sock.sendmsg(islice(self._out, _BUFFERS_PER_WRITE_MAX))
            except BlockingIOError:
                break
            except OSError as error:
                raise ConnectionLostError(
                    "connection to a slot broke", peer=self.peer, cause=str(error)
                ) from error
            self._written(written)
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._out else 0)
        if events != self._registered_events:
            self._registered_events = events
            self._selector.modify(self.sock, events, self)

    def _written(self, count: int) -> None:
        while count:
            first = self._out[0]
            if len(first) > count:
                self._out[0] = first[count:]
                return
            count -= len(first)
            self._out.popleft()

    def received(self, data: bytes) -> list[tuple[int, FrameKind, memoryview]]:
        """Take in bytes; return complete frames once the handshake is over."""
        if self.established:
            return self._reader.feed(data)
        self._handshake += data
        if self.dialed:
            self._challenged()
        elif not self._hello:
            self._greeted()
        if not self.dialed and self._hello and not self.established:
            self._proved()
        if not self.established:
            return []
        rest, self._handshake = bytes(self._handshake), bytearray()
        return self._reader.feed(rest) if rest else []

    def _greeted(self) -> None:
        """Acceptor: check the hello and answer with a challenge."""
        if len(self._handshake) < _HELLO.size:
            return
        hello = bytes(self._handshake[: _HELLO.size])
        del self._handshake[: _HELLO.size]
        magic, version, job, attempt, sender, receiver, _ = _HELLO.unpack(hello)
        own = self._identity
        if (magic, version) != (_MAGIC, _VERSION):
            raise ProtocolError("peer speaks another protocol", magic=magic, version=version)
        if (job, attempt, receiver) != (own.job_id.encode(), own.attempt, own.slot):
            raise ProtocolError("peer is of another job or attempt", job=job, attempt=attempt)
        self._hello, self.peer = hello, SlotId(sender)
        self._expected_proof = self._mac(b"dialer", self._nonce)
        self._out.append(memoryview(self._nonce + self._mac(b"acceptor", self._nonce)))
        self.write()

    def _challenged(self) -> None:
        """Dialer: check that the acceptor holds the secret and prove the same."""
        size = _NONCE_BYTES + _MAC_BYTES
        if len(self._handshake) < size:
            return
        nonce, mac = bytes(self._handshake[:_NONCE_BYTES]), bytes(self._handshake[_NONCE_BYTES:size])
        del self._handshake[:size]
        if not hmac.compare_digest(mac, self._mac(b"acceptor", nonce)):
            raise ProtocolError("peer does not hold the attempt's secret", peer=self.peer)
        self._out.append(memoryview(self._mac(b"dialer", nonce)))
        self.established = True
        self.write()

    def _proved(self) -> None:
        """Acceptor: check the dialer's proof."""
        if len(self._handshake) < _MAC_BYTES:
            return
        proof = bytes(self._handshake[:_MAC_BYTES])
        del self._handshake[:_MAC_BYTES]
        if not hmac.compare_digest(proof, self._expected_proof):
            raise ProtocolError("peer does not hold the attempt's secret", peer=self.peer)
        self.established = True

    def _mac(self, role: bytes, acceptor_nonce: bytes) -> bytes:
        return hmac.digest(self._identity.secret, role + self._hello + acceptor_nonce, "sha256")

    def close(self) -> None:
        """Close the socket."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(self.sock)
        self.sock.close()
