"""Data connections over TCP: one connection per pair of slots, driven by the slot's selector.

    dialer                                    acceptor
      | -- hello: magic, version, job, attempt, from, to, nonce ----> |
      | <- challenge: nonce, HMAC("acceptor", hello, both nonces) --- |
      | -- proof: HMAC("dialer", hello, both nonces) ---------------> |
      | <=========================== frames ========================> |

The slot with the lower id dials.  Both sides prove that they hold the attempt's secret
before the other decodes a byte of payload.  A stranger is cut off and does not disturb
the attempt; a broken connection to a peer fails it.
"""

import contextlib
import errno
import hmac
import logging
import os
import selectors
import socket
import struct
from collections import deque
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Protocol

from raystream.errors import ConnectionLostError, ProtocolError
from raystream.ids import SlotId
from raystream.runtime.frame import FrameKind, FrameReader, FrameWriter
from raystream.runtime.links import FrameHandler, LinkIdentity

logger = logging.getLogger(__name__)

_MAGIC = b"RAYSTRM\x00"
_VERSION = 1
_HELLO = struct.Struct("<8sH32sIII32s")
_NONCE_BYTES = 32
_MAC_BYTES = 32
_RECEIVE_BYTES = 256 << 10
_RECEIVES_PER_POLL_MAX = 4
_BUFFERS_PER_WRITE_MAX = 64
DIALER_HANDSHAKE_BYTES = _HELLO.size + _MAC_BYTES
ACCEPTOR_HANDSHAKE_BYTES = _NONCE_BYTES + _MAC_BYTES
"""What each side sends before its first frame."""
_STRANGERS_MAX = 64
"""Inbound connections that have not yet proved who they are."""


class Sockets(Protocol):
    """Where sockets come from: the operating system, or a simulated network."""

    def selector(self) -> selectors.BaseSelector:
        """Return a selector for the other sockets."""

    def stream(self, host: str) -> socket.socket:
        """Return a TCP socket for the family of an address."""

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """Return two sockets that are connected with each other."""


class SystemSockets:
    """Sockets of the operating system."""

    def selector(self) -> selectors.BaseSelector:
        return selectors.DefaultSelector()

    def stream(self, host: str) -> socket.socket:
        return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)

    def pair(self) -> tuple[socket.socket, socket.socket]:
        return socket.socketpair()


class TcpLinks:
    """Links over TCP sockets.

    Args:
        host: address of this node that its peers reach; the listener binds to it alone.
        sockets: where sockets come from.
    """

    def __init__(self, host: str, sockets: Sockets | None = None) -> None:
        self._host = host
        self._sockets = sockets or SystemSockets()
        self._selector = self._sockets.selector()
        self._wake_reader, self._wake_writer = self._sockets.pair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._selector.register(self._wake_reader, selectors.EVENT_READ, None)
        self._listener: socket.socket | None = None
        self._identity: LinkIdentity | None = None
        self._handler: FrameHandler | None = None
        self._expected: frozenset[SlotId] | None = None
        self._connections: dict[SlotId, _Connection] = {}
        self._strangers: deque[_Connection] = deque()

    def listen(self, identity: LinkIdentity, handler: FrameHandler) -> str:
        self._identity, self._handler = identity, handler
        listener = self._sockets.stream(self._host)
        listener.bind((self._host, 0))
        listener.listen(128)
        listener.setblocking(False)
        self._listener = listener
        self._selector.register(listener, selectors.EVENT_READ, listener)
        return f"{self._host}|{listener.getsockname()[1]}"

    def connect(self, addresses: Mapping[SlotId, str], peers: Iterable[SlotId]) -> None:
        assert self._identity is not None, "connect before listen"
        self._expected = frozenset(peers)
        for peer in sorted(self._expected):
            if self._identity.slot < peer:
                host, port = addresses[peer].split("|")
                self._dial(peer, host, int(port))

    @property
    def connected(self) -> bool:
        return self._expected is not None and all(
            peer in self._connections and self._connections[peer].established for peer in self._expected
        )

    def send(self, peer: SlotId, channel: int, kind: FrameKind, payload: bytes) -> None:
        connection = self._connections.get(peer)
        if connection is None or not connection.established:
            raise ConnectionLostError("no connection to a slot", peer=peer)
        connection.send_frame(channel, kind, payload)

    def poll(self) -> bool:
        moved = False
        for key, events in self._selector.select(0):
            owner = key.data
            if isinstance(owner, _Connection):
                moved = self._serve(owner, events) or moved
            elif owner is not None:
                self._accept(owner)
                moved = True
        return moved

    def wait(self, timeout_ms: float | None) -> None:
        for key, _ in self._selector.select(None if timeout_ms is None else timeout_ms / 1000.0):
            if key.data is None:
                # Only here: `poll` would take the wake-up of mail that came after the loop had looked for it.
                self._drain_wake_ups()

    def wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # The buffer is full of wake-ups already.
            self._wake_writer.send(b"\x00")

    def close(self) -> None:
        for connection in [*self._connections.values(), *self._strangers]:
            connection.close()
        self._connections.clear()
        self._strangers.clear()
        self._expected = None
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def dispose(self) -> None:
        """Drop everything, for good."""
        self.close()
        self._selector.close()
        self._wake_reader.close()
        self._wake_writer.close()

    # ---- connections ------------------------------------------------------

    def _dial(self, peer: SlotId, host: str, port: int) -> None:
        assert self._identity is not None
        sock = self._sockets.stream(host)
        sock.setblocking(False)
        error = sock.connect_ex((host, port))
        if error not in (0, errno.EINPROGRESS):
            sock.close()
            raise ConnectionLostError("slot does not accept connections", peer=peer, cause=os.strerror(error))
        connection = _Connection(sock, self._selector, self._identity, peer=peer)
        self._connections[peer] = connection

    def _accept(self, listener: socket.socket) -> None:
        assert self._identity is not None
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            sock, _ = listener.accept()
            sock.setblocking(False)
            if len(self._strangers) >= _STRANGERS_MAX:
                self._strangers.popleft().close()
            self._strangers.append(_Connection(sock, self._selector, self._identity, peer=None))

    def _serve(self, connection: "_Connection", events: int) -> bool:
        try:
            if events & selectors.EVENT_WRITE:
                connection.write()
            return self._read(connection) if events & selectors.EVENT_READ else True
        except (OSError, ProtocolError, ConnectionLostError) as error:
            if connection.established or connection.dialed:
                raise self._lost(connection, error) from error
            logger.warning("connection refused", extra={"cause": str(error)})
            connection.close()
            if connection in self._strangers:
                self._strangers.remove(connection)
            return True

    def _lost(self, connection: "_Connection", error: Exception) -> Exception:
        if not isinstance(error, OSError):
            return error
        return ConnectionLostError("connection to a slot broke", peer=connection.peer, cause=str(error))

    def _read(self, connection: "_Connection") -> bool:
        for _ in range(_RECEIVES_PER_POLL_MAX):
            try:
                data = connection.sock.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                break
            if not data:
                raise ConnectionLostError(
                    "connection to a slot broke", peer=connection.peer, cause="closed by the peer"
                )
            was_established = connection.established
            frames = connection.received(data)
            if connection.established and not was_established and connection in self._strangers:
                self._adopt(connection)
            assert self._handler is not None
            for channel, kind, payload in frames:
                self._handler(connection.peer, channel, kind, payload)  # type: ignore[arg-type]
            if len(data) < _RECEIVE_BYTES:
                break
        return True

    def _adopt(self, connection: "_Connection") -> None:
        """Take in an inbound connection that has proved who it is."""
        assert connection.peer is not None
        assert self._identity is not None
        self._strangers.remove(connection)
        known = connection.peer in self._connections
        if known or connection.peer >= self._identity.slot:
            connection.close()
            raise ProtocolError("second connection of a slot", peer=connection.peer)
        self._connections[connection.peer] = connection

    def _drain_wake_ups(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while len(self._wake_reader.recv(4096)) == 4096:
                pass


class _Connection:
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
