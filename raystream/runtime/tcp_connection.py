"""One data connection: the handshake, then frames in both directions.

    dialer                                    acceptor
      | -- hello: magic, version, job, attempt, from, to, nonce ----> |
      | <- challenge: nonce, HMAC("acceptor", hello, both nonces) --- |
      | -- proof: HMAC("dialer", hello, both nonces) ---------------> |
      | <=========================== frames ========================> |

Both sides prove that they hold the attempt's secret before the other decodes a byte of payload.  In TLS
the HMACs also cover what is particular to this one connection, so that nobody can pass them on.
Knows one socket and its selector; who may connect is decided by `raystream.runtime.tcp`.
"""

import contextlib
import hmac
import os
import selectors
import socket
import struct
from collections import deque

from raystream.errors import ConnectionLostError, ProtocolError
from raystream.ids import SlotId
from raystream.runtime.frame import FrameKind, FrameReader, FrameWriter
from raystream.runtime.links import LinkIdentity
from raystream.runtime.stream import PlainStream, TlsStream
from raystream.runtime.tls import Tls

_MAGIC = b"RAYSTRM\x00"
_VERSION = 1
_HELLO = struct.Struct("<8sH32sIII32s")
_NONCE_BYTES = 32
_MAC_BYTES = 32
_RECEIVE_BYTES = 256 << 10
DIALER_HANDSHAKE_BYTES = _HELLO.size + _MAC_BYTES
ACCEPTOR_HANDSHAKE_BYTES = _NONCE_BYTES + _MAC_BYTES
"""What each side sends before its first frame."""


class Connection:
    """One socket: handshake, then frames in both directions.

    Args:
        sock: a socket that does not block.
        selector: watches it from now on.
        identity: who this slot is.
        peer: who is dialed; None for an inbound connection.
        tls: how the connection is encrypted; None for not at all.
    """

    def __init__(
        self,
        sock: socket.socket,
        selector: selectors.BaseSelector,
        identity: LinkIdentity,
        *,
        peer: SlotId | None,
        tls: Tls | None = None,
    ) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = sock
        self._stream = PlainStream(sock) if tls is None else TlsStream(sock, tls, dialed=peer is not None)
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
        if peer is not None:
            self._hello = _HELLO.pack(
                _MAGIC, _VERSION, identity.job_id.encode(), identity.attempt, identity.slot, peer, self._nonce
            )
            self._out.append(memoryview(self._hello))
        self._registered_events = self._events  # Also tells a dialer that it is connected.
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
        while self._out or self._stream.unsent:
            try:
                written = self._stream.send(self._out)
            except BlockingIOError:
                break
            except OSError as error:
                raise ConnectionLostError(
                    "connection to a slot broke", peer=self.peer, cause=str(error)
                ) from error
            self._written(written)
        self._watch()

    def receive(self) -> tuple[bytes, bool]:
        """Return bytes that have come, and whether there may be more; no bytes at the end.

        Raises:
            BlockingIOError: nothing has come.
            OSError: the connection broke.
            ConnectionLostError: the peer is refused, or refuses this end.
        """
        try:
            data = self._stream.receive(_RECEIVE_BYTES)
        finally:
            self._watch()  # TLS may have become ready for the greeting, or have to answer by itself.
        return data, len(data) >= _RECEIVE_BYTES

    @property
    def _events(self) -> int:
        """What the selector shall watch for."""
        writes = self._stream.unsent or (self._stream.ready and bool(self._out))
        return selectors.EVENT_READ | (selectors.EVENT_WRITE if writes else 0)

    def _watch(self) -> None:
        events = self._events
        if events != self._registered_events:
            self._registered_events = events
            self._selector.modify(self._sock, events, self)

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
        about = role + self._hello + acceptor_nonce + self._stream.binding
        return hmac.digest(self._identity.secret, about, "sha256")

    def close(self) -> None:
        """Close the socket."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(self._sock)
        self._sock.close()
