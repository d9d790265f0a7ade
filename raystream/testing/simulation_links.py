"""Connections between simulated slots: in order, after a while, until they break.

Takes the place of `raystream.runtime.tcp`.  Frames are packed and checked by the same
`FrameWriter` and `FrameReader`; only the bytes between them travel through the world.  As with
TCP, who sends to a process that has died learns of it later, and what it has sent meanwhile
is lost; a connection may deliver a frame in two pieces.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from raystream.errors import ConnectionLostError
from raystream.ids import SlotId
from raystream.runtime.frame import FrameKind, FrameReader, FrameWriter
from raystream.runtime.links import FrameHandler, LinkIdentity
from raystream.testing.faults import Damage
from raystream.testing.simulation_world import World

LATENCY_MS_MAX = 2.0
CONNECT_MS_MAX = 5.0
BREAK_NOTICE_MS_MAX = 30.0
"""Time until a peer of a dead process learns of its death."""

CUT_SHARE = 0.1
"""Share of the frames that arrive in two pieces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameFate:
    """What happens to one frame on its way."""

    delay_ms: float = 0.0
    damage: Damage | None = None
    breaks: bool = False


class LinkWatcher(Protocol):
    """Decides what happens to frames, and sees what arrives."""

    def frame_sent(self) -> FrameFate:
        """Called for every frame."""

    def frame_arrived(self, slot: SlotId, kind: FrameKind, payload: memoryview) -> None:
        """Called before a slot handles a frame."""


class Network:
    """All connections of a run."""

    def __init__(self, world: World, watcher: LinkWatcher) -> None:
        self.world = world
        self.watcher = watcher
        self._endpoints: dict[str, SimulatedLinks] = {}
        self._count = 0

    def register(self, links: "SimulatedLinks") -> str:
        """Return a fresh address for an endpoint."""
        self._count += 1
        address = f"simulated:{self._count}"
        self._endpoints[address] = links
        return address

    def unregister(self, address: str) -> None:
        """Nobody answers at this address any more."""
        self._endpoints.pop(address, None)

    def find(self, address: str) -> "SimulatedLinks | None":
        """Return who answers at an address."""
        return self._endpoints.get(address)


class _Connection:
    """One end of a connection; the two ends know each other."""

    def __init__(self, world: World, owner: "SimulatedLinks", peer: SlotId, attempt: int) -> None:
        self.peer = peer
        self.established = False
        self.broken = False
        self.arrived = bytearray()
        self.other: _Connection | None = None
        self.writer = FrameWriter(attempt)
        self.reader = FrameReader(attempt)
        self._world = world
        self._owner = owner
        self._last_ms = 0.0

    def transmit(self, data: bytes, delay_ms: float) -> None:
        """Let bytes arrive at the other end, behind everything that was sent before."""
        world, other = self._world, self.other
        assert other is not None, "bytes on a connection that was never accepted"
        self._last_ms = max(self._last_ms, world.now_ms + world.delay_ms(LATENCY_MS_MAX) + delay_ms)

        def arrive() -> None:
            if not other.broken:
                other.arrived += data
                other._owner.wake()

        world.at(self._last_ms, arrive)

    def establish(self) -> None:
        """This end may send from now on."""
        self.established = True
        self._owner.wake()

    def lose(self) -> None:
        """This end learns that the connection is gone."""
        self.broken = True
        self._owner.wake()

    def cut(self, notice_ms_max: float) -> None:
        """Break the connection; the other end learns of it a little later."""
        self.broken = True
        if self.other is not None:
            self._world.after(self._world.delay_ms(notice_ms_max), self.other.lose)


class SimulatedLinks:
    """The `Links` of one simulated slot.

    Args:
        network: where peers are found.
        slot: whose links they are.
        wake: wakes the slot's loop.
    """

    def __init__(self, network: Network, slot: SlotId, wake: Callable[[], None]) -> None:
        self._network = network
        self._world = network.world
        self._slot = slot
        self.wake = wake
        self._address = ""
        self._identity: LinkIdentity | None = None
        self._handler: FrameHandler | None = None
        self._expected: frozenset[SlotId] | None = None
        self._connections: dict[SlotId, _Connection] = {}

    def listen(self, identity: LinkIdentity, handler: FrameHandler) -> str:
        self._identity, self._handler = identity, handler
        self._address = self._network.register(self)
        return self._address

    def connect(self, addresses: Mapping[SlotId, str], peers: Iterable[SlotId]) -> None:
        self._expected = frozenset(peers)
        for peer in sorted(self._expected):
            if self._slot < peer:
                connection = self._connections[peer] = self._connection(peer)
                dial = partial(self._dial, connection, addresses[peer])
                self._world.after(self._world.delay_ms(CONNECT_MS_MAX), dial)

    @property
    def connected(self) -> bool:
        return self._expected is not None and all(
            peer in self._connections and self._connections[peer].established for peer in self._expected
        )

    def send(self, peer: SlotId, channel: int, kind: FrameKind, payload: bytes) -> None:
        connection = self._connections.get(peer)
        if connection is None or not connection.established:
            raise ConnectionLostError("no connection to a slot", peer=peer)
        if connection.broken:
            return  # Lost on the way; `poll` tells.
        data = connection.writer.header(channel, kind, payload) + payload
        fate = self._network.watcher.frame_sent()
        if fate.breaks:
            connection.cut(BREAK_NOTICE_MS_MAX)
            return
        for piece in self._pieces(data, fate.damage):
            connection.transmit(piece, fate.delay_ms)

    def poll(self) -> bool:
        moved = False
        for peer in sorted(self._connections):
            connection = self._connections[peer]
            if connection.arrived:
                moved = True
                self._take(connection)
            if connection.broken:
                raise ConnectionLostError("connection to a slot broke", peer=peer)
        return moved

    def wait(self, timeout_ms: float | None) -> None:
        """Never called: the world knows who waits."""
        raise AssertionError("a simulated slot was waited for")

    def close(self) -> None:
        self.drop(BREAK_NOTICE_MS_MAX)

    def drop(self, notice_ms_max: float) -> None:
        """Cut all connections; peers learn of it a little later."""
        self._network.unregister(self._address)
        for connection in self._connections.values():
            connection.cut(notice_ms_max)
        self._connections = {}
        self._expected = None

    def _connection(self, peer: SlotId) -> _Connection:
        assert self._identity is not None, "connect before listen"
        return _Connection(self._world, self, peer, self._identity.attempt)

    def _dial(self, connection: _Connection, address: str) -> None:
        """Reach the peer, or learn that nobody is there."""
        peer = self._network.find(address)
        if connection.broken:
            return
        if peer is None:
            connection.lose()
            return
        accepted = peer._connections[self._slot] = peer._connection(self._slot)
        connection.other, accepted.other = accepted, connection
        for end in (connection, accepted):
            self._world.after(self._world.delay_ms(CONNECT_MS_MAX), end.establish)

    def _take(self, connection: _Connection) -> None:
        """Hand the frames that have arrived to the slot."""
        data, connection.arrived = connection.arrived, bytearray()
        for channel, kind, payload in connection.reader.feed(data):
            self._network.watcher.frame_arrived(self._slot, kind, payload)
            assert self._handler is not None, "frame before listen"
            self._handler(connection.peer, channel, kind, payload)

    def _pieces(self, data: bytes, damage: Damage | None) -> list[bytes]:
        """Return what travels instead of a frame's bytes."""
        rng = self._world.rng
        match damage:
            case Damage.LOST:
                return []
            case Damage.REPEATED:
                return [data, data]
            case Damage.BIT_FLIPPED:
                damaged = bytearray(data)
                damaged[rng.randrange(4, len(data))] ^= 1 << rng.randrange(8)
                return [bytes(damaged)]
        if rng.random() < CUT_SHARE:
            at = rng.randrange(1, len(data))
            return [data[:at], data[at:]]
        return [data]
