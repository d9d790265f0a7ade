"""Connections of one slot to its peers, as the slot's loop sees them.

`Links` is the interface; `raystream.runtime.tcp` implements it with sockets,
`MemoryLinks` here for slots that live in one process.  Both move the same frames.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from raystream.errors import ConnectionLostError
from raystream.ids import Attempt, JobId, SlotId
from raystream.runtime.frame import FrameKind, FrameReader, FrameWriter

FrameHandler = Callable[[SlotId, int, FrameKind, memoryview], None]
"""Called with peer, channel, kind and payload of each frame, on the loop's thread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkIdentity:
    """Who a slot is to its peers, and what they must agree on before a payload is decoded."""

    job_id: JobId
    attempt: Attempt
    slot: SlotId
    secret: bytes
    slot_count: int
    """Slots of the job: no more peers than that will come."""


class Links(Protocol):
    """The data connections of one slot; all methods but `wake` on the loop's thread."""

    def listen(self, identity: LinkIdentity, handler: FrameHandler) -> str:
        """Accept peers from now on; return the address to be told to them."""

    def connect(self, addresses: Mapping[SlotId, str], peers: Iterable[SlotId]) -> None:
        """Begin to connect with these peers; the slot of the lower id dials."""

    @property
    def connected(self) -> bool:
        """True when every connection stands."""

    def send(self, peer: SlotId, channel: int, kind: FrameKind, payload: bytes) -> None:
        """Queue a frame; it is written as soon as the connection takes it."""

    def poll(self) -> bool:
        """Move what can be moved without waiting; True when a frame or connection came in.

        Raises:
            ConnectionLostError: a connection broke.
            ProtocolError: a peer sent what it must not.
        """

    def next_deadline_ms(self) -> float | None:
        """Return when `poll` has something to do by itself, in ms of the monotonic clock."""

    def wait(self, timeout_ms: float | None) -> None:
        """Block until `poll` has something to do, `wake` is called or the time is over."""

    def wake(self) -> None:
        """Interrupt `wait`, now or its next call; from any thread."""

    def close(self) -> None:
        """Drop listener and connections; the object may `listen` again."""


class MemoryNetwork:
    """Where the `MemoryLinks` of one process find each other."""

    def __init__(self) -> None:
        self._endpoints: dict[str, MemoryLinks] = {}
        self._count = 0

    def register(self, links: "MemoryLinks") -> str:
        """Return a fresh address for an endpoint."""
        self._count += 1
        address = f"memory:{self._count}"
        self._endpoints[address] = links
        return address

    def find(self, address: str) -> "MemoryLinks | None":
        """Return the endpoint of an address, or None when it is gone."""
        return self._endpoints.get(address)

    def unregister(self, address: str) -> None:
        """Forget an address; sending to it fails from now on."""
        self._endpoints.pop(address, None)


class MemoryLinks:
    """Links between slots of one process, driven by one thread."""

    def __init__(self, network: MemoryNetwork, wake: Callable[[], None]) -> None:
        self._network = network
        self._wake = wake
        self._address = ""
        self._identity: LinkIdentity | None = None
        self._handler: FrameHandler | None = None
        self._peers: dict[SlotId, str] = {}
        self._writers: dict[SlotId, FrameWriter] = {}
        self._readers: dict[SlotId, FrameReader] = {}
        self._inbox: deque[tuple[SlotId, bytes]] = deque()

    def listen(self, identity: LinkIdentity, handler: FrameHandler) -> str:
        self._identity, self._handler = identity, handler
        self._address = self._network.register(self)
        return self._address

    def connect(self, addresses: Mapping[SlotId, str], peers: Iterable[SlotId]) -> None:
        assert self._identity is not None, "connect before listen"
        self._peers = {peer: addresses[peer] for peer in peers}
        self._writers = {peer: FrameWriter(self._identity.attempt) for peer in self._peers}
        self._readers = {peer: FrameReader(self._identity.attempt) for peer in self._peers}

    @property
    def connected(self) -> bool:
        return self._identity is not None

    def send(self, peer: SlotId, channel: int, kind: FrameKind, payload: bytes) -> None:
        assert self._identity is not None, "send before listen"
        endpoint = self._network.find(self._peers[peer])
        if endpoint is None:
            raise ConnectionLostError("peer slot is gone", peer=peer)
        data = self._writers[peer].header(channel, kind, payload) + payload
        endpoint.receive(self._identity.slot, data)

    def receive(self, peer: SlotId, data: bytes) -> None:
        """Take bytes that a peer has sent."""
        self._inbox.append((peer, data))
        self._wake()

    def poll(self) -> bool:
        moved = bool(self._inbox)
        while self._inbox:
            peer, data = self._inbox.popleft()
            if peer not in self._readers:
                self._inbox.appendleft((peer, data))
                return False  # The peer was told of this slot first; its frames wait for `connect`.
            for channel, kind, payload in self._readers[peer].feed(data):
                assert self._handler is not None, "frame before listen"
                self._handler(peer, channel, kind, payload)
        return moved

    def next_deadline_ms(self) -> float | None:
        return None

    def wait(self, timeout_ms: float | None) -> None:
        """Do nothing: whoever drives several slots with one thread waits for all of them."""

    def wake(self) -> None:
        self._wake()

    def close(self) -> None:
        self._network.unregister(self._address)
        self._identity, self._handler = None, None
        self._inbox.clear()
        self._peers.clear()
        self._writers.clear()
        self._readers.clear()
