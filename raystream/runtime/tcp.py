"""Data connections over TCP: one connection per pair of slots, driven by the slot's selector.

The slot with the lower id dials, and both sides prove who they are (`tcp_connection`).  A stranger
is cut off and does not disturb the attempt; a broken connection to a peer fails it.

Who has not yet proved anything may be a peer.  So none is cut off to make room: when there are
too many, nobody is accepted until one of them has proved itself, gone, or used up its time.  That
runs from when it was accepted, and anew once: from a greeting that only a slot of this attempt makes.
"""

import contextlib
import errno
import logging
import os
import selectors
import socket
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from raystream.clock import Clock
from raystream.errors import ConnectionLostError, ProtocolError
from raystream.ids import SlotId
from raystream.runtime.frame import FrameKind
from raystream.runtime.links import FrameHandler, LinkIdentity
from raystream.runtime.tcp_connection import Connection
from raystream.runtime.tls import Tls

logger = logging.getLogger(__name__)

_RECEIVES_PER_POLL_MAX = 4
_STRANGERS_MAX = 64
"""Inbound connections that have not yet proved who they are, beyond one for each slot of the job."""
HANDSHAKE_TIMEOUT_MS = 30_000.0
"""Time that such a connection has to greet, and then again to prove who it is, before it is closed."""


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
        clock: measures the time that a stranger has.
        sockets: where sockets come from.
        tls: asked at each `listen` how connections are encrypted; None when they are not.
    """

    def __init__(
        self,
        host: str,
        clock: Clock,
        sockets: Sockets | None = None,
        tls: Callable[[], Tls | None] = lambda: None,
    ) -> None:
        self._host = host
        self._clock = clock
        self._sockets = sockets or SystemSockets()
        self._make_tls = tls
        self._tls: Tls | None = None
        self._selector = self._sockets.selector()
        self._wake_reader, self._wake_writer = self._sockets.pair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._selector.register(self._wake_reader, selectors.EVENT_READ, None)
        self._listener: socket.socket | None = None
        self._accepting = False  # The listener is registered.
        self._identity: LinkIdentity | None = None
        self._handler: FrameHandler | None = None
        self._expected: frozenset[SlotId] | None = None
        self._connections: dict[SlotId, Connection] = {}
        self._strangers: dict[Connection, float] = {}  # When each is closed, the next one first.

    def listen(self, identity: LinkIdentity, handler: FrameHandler) -> str:
        self._tls = self._make_tls()
        self._identity, self._handler = identity, handler
        listener = self._sockets.stream(self._host)
        listener.bind((self._host, 0))
        listener.listen(self._strangers_max)
        listener.setblocking(False)
        self._listener = listener
        self._accept_if_room()
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
            if isinstance(owner, Connection):
                moved = self._serve(owner, events) or moved
            elif owner is not None:
                self._accept(owner)
                moved = True
        if self._strangers:  # Only now: who has spoken while the slot was busy is not silent.
            self._close_silent()
        return moved

    def next_deadline_ms(self) -> float | None:
        return next(iter(self._strangers.values()), None)

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
        self._expected = self._identity = self._handler = None
        if self._listener is not None:
            if self._accepting:
                self._selector.unregister(self._listener)
            self._listener.close()
            self._listener, self._accepting = None, False

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
        connection = Connection(sock, self._selector, self._identity, peer=peer, tls=self._tls)
        self._connections[peer] = connection

    def _accept(self, listener: socket.socket) -> None:
        assert self._identity is not None
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            sock, _ = listener.accept()
            sock.setblocking(False)
            self._give_time(Connection(sock, self._selector, self._identity, peer=None, tls=self._tls))
            if len(self._strangers) >= self._strangers_max:
                many = {"slot": self._identity.slot, "strangers": len(self._strangers)}
                logger.warning("too many connections that do not say who they are, others wait", extra=many)
                self._selector.unregister(listener)
                self._accepting = False

    @property
    def _strangers_max(self) -> int:
        assert self._identity is not None
        return self._identity.slot_count + _STRANGERS_MAX

    def _give_time(self, stranger: "Connection") -> None:
        self._strangers.pop(stranger, None)
        self._strangers[stranger] = self._clock.monotonic_ms() + HANDSHAKE_TIMEOUT_MS

    def _close_silent(self) -> None:
        now_ms = self._clock.monotonic_ms()
        for stranger in [one for one, close_ms in self._strangers.items() if close_ms <= now_ms]:
            logger.warning("connection that does not say who it is closed")
            stranger.close()
            self._forget(stranger)

    def _forget(self, stranger: "Connection") -> None:
        """Take a connection from the strangers, which makes room for another one."""
        del self._strangers[stranger]
        self._accept_if_room()

    def _accept_if_room(self) -> None:
        if self._listener is not None and not self._accepting and len(self._strangers) < self._strangers_max:
            self._selector.register(self._listener, selectors.EVENT_READ, self._listener)
            self._accepting = True

    def _serve(self, connection: "Connection", events: int) -> bool:
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
                self._forget(connection)
            return True

    def _lost(self, connection: "Connection", error: Exception) -> Exception:
        if not isinstance(error, OSError):
            return error
        return ConnectionLostError("connection to a slot broke", peer=connection.peer, cause=str(error))

    def _read(self, connection: "Connection") -> bool:
        for _ in range(_RECEIVES_PER_POLL_MAX):
            try:
                data, more = connection.receive()
            except BlockingIOError:
                break
            if not data:
                raise ConnectionLostError(
                    "connection to a slot broke", peer=connection.peer, cause="closed by the peer"
                )
            was_established, was_greeted = connection.established, connection.peer is not None
            frames = connection.received(data)
            if not was_established and connection in self._strangers:
                if connection.established:
                    self._adopt(connection)
                elif connection.peer is not None and not was_greeted:
                    self._give_time(connection)
            assert self._handler is not None
            for channel, kind, payload in frames:
                self._handler(connection.peer, channel, kind, payload)  # type: ignore[arg-type]
            if not more:
                break
        return True

    def _adopt(self, connection: "Connection") -> None:
        """Take in an inbound connection that has proved who it is."""
        assert connection.peer is not None
        assert self._identity is not None
        self._forget(connection)
        known = connection.peer in self._connections
        if known or connection.peer >= self._identity.slot:
            connection.close()
            raise ProtocolError("second connection of a slot", peer=connection.peer)
        self._connections[connection.peer] = connection

    def _drain_wake_ups(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while len(self._wake_reader.recv(4096)) == 4096:
                pass
