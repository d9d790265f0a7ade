"""A network for simulated slots: sockets that behave as TCP sockets do, between processes that die.

The connections themselves are `raystream.runtime.tcp`, unchanged; these are the sockets below
it.  Bytes arrive in order and after a while; a socket takes only so many at a time; a
connection is refused, closed or reset, and who is at its other end learns of that later.

Faults concern frames, so the network finds them in the bytes that go through it.
"""

import errno
import selectors
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast

from raystream.ids import SlotId
from raystream.runtime.frame import HEADER_BYTES, FrameKind
from raystream.runtime.tcp_connection import ACCEPTOR_HANDSHAKE_BYTES, DIALER_HANDSHAKE_BYTES
from raystream.testing.faults import Damage
from raystream.testing.simulation_world import World

LATENCY_MS_MAX = 2.0
CONNECT_MS_MAX = 5.0
BREAK_NOTICE_MS_MAX = 30.0
"""Time until one end of a connection learns that the other one is gone."""

FULL_SHARE = 0.15
"""Share of the writes with which a socket becomes full, so that it takes only a part."""

CUT_SHARE = 0.1
"""Share of the frames that arrive in two pieces."""

HOST = "simulated"

_LENGTH = struct.Struct("<I")
_KIND_OFFSET = 12
"""Where the kind of a frame stands in its header."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameFate:
    """What happens to one frame on its way."""

    delay_ms: float = 0.0
    damage: Damage | None = None
    breaks: bool = False


class FrameWatcher(Protocol):
    """Decides what happens to frames, and sees what arrives."""

    def frame_sent(self) -> FrameFate:
        """Called for every frame."""

    def frame_arrived(self, slot: SlotId, kind: FrameKind, payload: bytes) -> None:
        """Called when the machine of a slot has a frame, which the slot has yet to read."""


class Network:
    """Listeners by port, and what may happen to frames."""

    def __init__(self, world: World, watcher: FrameWatcher) -> None:
        self.world = world
        self.watcher = watcher
        self.listeners: dict[int, SimulatedSocket] = {}
        self._ports = 0

    def draw_port(self) -> int:
        """Return a port that was never used."""
        self._ports += 1
        return self._ports


class ProcessSockets:
    """The sockets of one process.

    Args:
        network: where they are.
        slot: whose process it is.
        wake: interrupts the wait of the process.

    Attributes:
        open: all that are not closed.
    """

    def __init__(self, network: Network, slot: SlotId, wake: Callable[[], None]) -> None:
        self.network = network
        self.slot = slot
        self.open: list[SimulatedSocket] = []
        self._wake = wake
        self._selector = SimulatedSelector()

    def selector(self) -> selectors.BaseSelector:
        return self._selector

    def stream(self, host: str) -> socket.socket:
        assert host == HOST, host
        return cast(socket.socket, SimulatedSocket(self))

    def pair(self) -> tuple[socket.socket, socket.socket]:
        return cast(socket.socket, SimulatedSocket(self)), cast(socket.socket, _Waker(self._wake))

    @property
    def ready(self) -> bool:
        """True when a wait for the sockets would end at once."""
        return bool(self._selector.select(0))

    def changed(self, own: "SimulatedSocket") -> None:
        """Something about a socket has changed: the process wakes if it waits for that."""
        if self._selector.events(own):
            self._wake()

    def die(self) -> None:
        """The process is gone, and its machine closes all its sockets."""
        for own in list(self.open):
            own.close()


class _Waker:
    """The writing end of a pair that only serves to wake the process."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake

    def setblocking(self, _flag: bool) -> None:
        """Do nothing: it never blocks."""

    def send(self, data: bytes) -> int:
        self._wake()
        return len(data)

    def close(self) -> None:
        """Do nothing: nothing is open."""


class _Flow:
    """One direction of a connection: takes bytes, finds frames in them, lets them arrive in order."""

    def __init__(self, network: Network, receiver: "SimulatedSocket", handshake_bytes: int) -> None:
        self._network = network
        self._world = network.world
        self._receiver = receiver
        self._handshake_bytes = handshake_bytes
        self._incomplete = bytearray()
        self._last_ms = 0.0

    def take(self, data: bytes) -> bool:
        """Take bytes on their way; False when the connection breaks with them."""
        handshake, data = data[: self._handshake_bytes], data[self._handshake_bytes :]
        self._handshake_bytes -= len(handshake)
        if handshake:
            self._arrive_later(handshake, 0.0)
        self._incomplete += data
        while frame := self._next_frame():
            fate = self._network.watcher.frame_sent()
            if fate.breaks:
                return False
            self._forward(frame, fate)
        return True

    def end(self, call: Callable[[], None]) -> None:
        """Make a call when everything has arrived and a little more time has passed."""
        self._last_ms = max(self._last_ms, self._world.now_ms + self._world.delay_ms(BREAK_NOTICE_MS_MAX))
        self._world.at(self._last_ms, call)

    def _next_frame(self) -> bytes:
        if len(self._incomplete) < HEADER_BYTES:
            return b""
        size = HEADER_BYTES + _LENGTH.unpack_from(self._incomplete)[0]
        if len(self._incomplete) < size:
            return b""
        frame = bytes(self._incomplete[:size])
        del self._incomplete[:size]
        return frame

    def _forward(self, frame: bytes, fate: FrameFate) -> None:
        rng = self._world.rng
        at = rng.randrange(1, len(frame)) if rng.random() < CUT_SHARE else 0
        seen = frame if fate.damage is None else b""
        match fate.damage:
            case Damage.LOST:
                return
            case Damage.REPEATED:
                self._arrive_later(frame, fate.delay_ms)
            case Damage.BIT_FLIPPED:
                damaged = bytearray(frame)
                # Behind the length: with another length the reader would wait for what never comes.
                damaged[rng.randrange(_LENGTH.size, len(frame))] ^= 1 << rng.randrange(8)
                frame = bytes(damaged)
        if at:
            self._arrive_later(frame[:at], fate.delay_ms)
        self._arrive_later(frame[at:], fate.delay_ms, seen)

    def _arrive_later(self, data: bytes, delay_ms: float, frame: bytes = b"") -> None:
        world = self._world
        self._last_ms = max(self._last_ms, world.now_ms + world.delay_ms(LATENCY_MS_MAX) + delay_ms)
        world.at(self._last_ms, partial(self._arrive, data, frame))

    def _arrive(self, data: bytes, frame: bytes) -> None:
        receiver = self._receiver
        if receiver.closed or receiver.error is not None:
            return
        receiver.arrived(data)
        if frame:
            kind, payload = frame[_KIND_OFFSET], frame[HEADER_BYTES:]
            self._network.watcher.frame_arrived(receiver.slot, FrameKind(kind), payload)


class SimulatedSocket:
    """A TCP socket that never blocks, as far as `raystream.runtime.tcp` uses one.

    Attributes:
        slot: whose socket it is.
        closed: True when this end was closed.
        error: what every further use of it raises; None while it is whole.
    """

    def __init__(self, owner: ProcessSockets) -> None:
        self.slot = owner.slot
        self.closed = False
        self.error: OSError | None = None
        self._owner = owner
        self._network = owner.network
        self._world = owner.network.world
        self._port = 0
        self._backlog: deque[SimulatedSocket] = deque()
        self._peer: SimulatedSocket | None = None
        self._flow: _Flow | None = None
        self._inbox = bytearray()
        self._ended = False
        self._full = False
        owner.open.append(self)

    # ---- what the program calls ----------------------------------------------

    def setblocking(self, flag: bool) -> None:
        """Do nothing: it never blocks."""

    def setsockopt(self, level: int, option: int, value: int) -> None:
        """Do nothing: no option matters here."""

    def bind(self, address: tuple[str, int]) -> None:
        self._port = self._network.draw_port()

    def listen(self, backlog: int) -> None:
        self._network.listeners[self._port] = self

    def getsockname(self) -> tuple[str, int]:
        return HOST, self._port

    def accept(self) -> tuple["SimulatedSocket", tuple[str, int]]:
        if not self._backlog:
            raise BlockingIOError(errno.EAGAIN, "nobody is waiting")
        return self._backlog.popleft(), (HOST, 0)

    def connect_ex(self, address: tuple[str, int]) -> int:
        self._world.after(self._world.delay_ms(CONNECT_MS_MAX), partial(self._reach, address[1]))
        return errno.EINPROGRESS

    def recv(self, most: int) -> bytes:
        if self.error is not None:
            raise self.error
        if not self._inbox:
            if self._ended:
                return b""
            raise BlockingIOError(errno.EAGAIN, "nothing has arrived")
        data = bytes(self._inbox[:most])
        del self._inbox[:most]
        return data

    def sendmsg(self, buffers: Iterable[bytes | memoryview]) -> int:
        if self.error is not None:
            raise self.error
        if self._flow is None or self._full:
            raise BlockingIOError(errno.EAGAIN, "no room")
        data = b"".join(buffers)
        rng = self._world.rng
        if rng.random() < FULL_SHARE and len(data) > 1:
            data = data[: rng.randrange(1, len(data))]
            self._full = True
            self._world.after(self._world.delay_ms(LATENCY_MS_MAX), self._has_room)
        if not self._flow.take(data):
            self._break()
        return len(data)

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._owner.open.remove(self)
        if self._network.listeners.get(self._port) is self:
            del self._network.listeners[self._port]
        for waiting in self._backlog:
            waiting.close()
        if self._flow is not None and self._peer is not None:
            # Who closes with unread bytes resets the connection, as TCP does.
            self._flow.end(partial(self._peer.lost, reset=bool(self._inbox)))

    # ---- what the network does -------------------------------------------------

    @property
    def readable(self) -> bool:
        """True when reading would not block."""
        return bool(self._inbox or self._backlog or self._ended or self.error is not None)

    @property
    def writable(self) -> bool:
        """True when writing would not block."""
        return self.error is not None or (self._flow is not None and not self._full)

    def arrived(self, data: bytes) -> None:
        """Bytes have come."""
        self._inbox += data
        self._owner.changed(self)

    def lost(self, *, reset: bool) -> None:
        """The other end is gone."""
        if reset:
            self.error = ConnectionResetError(errno.ECONNRESET, "connection reset by peer")
        self._ended = True
        self._owner.changed(self)

    def _reach(self, port: int) -> None:
        """A connection request arrives where it was sent to."""
        listener = self._network.listeners.get(port)
        if self.closed:
            return
        if listener is None:
            self.error = ConnectionRefusedError(errno.ECONNREFUSED, "connection refused")
            self._owner.changed(self)
            return
        accepted = SimulatedSocket(listener._owner)
        self._join(accepted, DIALER_HANDSHAKE_BYTES)
        accepted._join(self, ACCEPTOR_HANDSHAKE_BYTES)
        listener._backlog.append(accepted)
        listener._owner.changed(listener)
        self._owner.changed(self)

    def _join(self, peer: "SimulatedSocket", handshake_bytes: int) -> None:
        self._peer = peer
        self._flow = _Flow(self._network, peer, handshake_bytes)

    def _has_room(self) -> None:
        self._full = False
        self._owner.changed(self)

    def _break(self) -> None:
        """Something between the two ends breaks the connection."""
        for end in (self, self._peer):
            if end is not None:
                delay_ms = self._world.delay_ms(BREAK_NOTICE_MS_MAX)
                self._world.after(delay_ms, partial(end.lost, reset=True))
        self._flow = None


class SimulatedSelector(selectors.BaseSelector):
    """Tells which simulated sockets are ready; never waits."""

    def __init__(self) -> None:
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = self._keys[fileobj] = selectors.SelectorKey(fileobj, 0, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout == 0, "a simulated process was waited for"
        return [(key, events) for key in self._keys.values() if (events := self._ready(key))]

    def events(self, fileobj: Any) -> int:
        """Return what is waited for and ready of one socket."""
        key = self._keys.get(fileobj)
        return 0 if key is None else self._ready(key)

    def _ready(self, key: selectors.SelectorKey) -> int:
        own = cast(SimulatedSocket, key.fileobj)
        events = selectors.EVENT_READ if own.readable else 0
        events |= selectors.EVENT_WRITE if own.writable else 0
        return events & key.events

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys

    def close(self) -> None:
        self._keys.clear()
