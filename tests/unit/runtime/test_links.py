"""Links inside one process move the same frames, in order, and notice a peer that is gone."""

import pytest

from raystream.errors import ConnectionLostError
from raystream.runtime.frame import FrameKind
from raystream.runtime.links import LinkIdentity, MemoryLinks, MemoryNetwork


class Node:
    """One end, and what came in."""

    def __init__(self, network, slot, attempt=1):
        self.slot = slot
        self.received = []
        self.wakes = 0
        self.links = MemoryLinks(network, self._wake)
        self.listen(attempt)

    def listen(self, attempt):
        identity = LinkIdentity(job_id="j" * 32, attempt=attempt, slot=self.slot, secret=b"s", slot_count=2)
        self.address = self.links.listen(identity, self._handle)

    def _wake(self):
        self.wakes += 1

    def _handle(self, peer, channel, kind, payload):
        self.received.append((peer, channel, kind, bytes(payload)))


def connect(*nodes):
    addresses = {node.slot: node.address for node in nodes}
    for node in nodes:
        node.links.connect(addresses, [slot for slot in addresses if slot != node.slot])


@pytest.fixture
def pair():
    network = MemoryNetwork()
    nodes = Node(network, 0), Node(network, 1)
    connect(*nodes)
    return nodes


def test_frames_arrive_in_order_at_the_next_poll(pair):
    one, other = pair
    one.links.send(1, 4, FrameKind.BATCH, b"a")
    one.links.send(1, 4, FrameKind.CONTROL, b"b")
    assert other.received == []
    assert other.wakes == 2

    assert other.links.poll()
    assert other.received == [(0, 4, FrameKind.BATCH, b"a"), (0, 4, FrameKind.CONTROL, b"b")]
    assert not other.links.poll()


def test_frames_wait_for_a_peer_that_has_not_connected_yet():
    network = MemoryNetwork()
    one, other = Node(network, 0), Node(network, 1)
    addresses = {0: one.address, 1: other.address}
    one.links.connect(addresses, [1])
    one.links.send(1, 0, FrameKind.BATCH, b"early")

    assert not other.links.poll()
    other.links.connect(addresses, [0])
    assert other.links.poll()
    assert [payload for *_, payload in other.received] == [b"early"]


def test_sending_to_a_peer_that_is_gone_is_a_lost_connection(pair):
    one, other = pair
    other.links.close()

    with pytest.raises(ConnectionLostError, match="peer slot is gone"):
        one.links.send(1, 0, FrameKind.BATCH, b"x")


def test_next_attempt_starts_afresh(pair):
    one, other = pair
    one.links.send(1, 0, FrameKind.BATCH, b"of attempt 1")
    for node in pair:
        node.links.close()
        assert not node.links.connected
        node.listen(2)
    addresses = {node.slot: node.address for node in pair}
    one.links.connect(addresses, [1])
    one.links.send(1, 0, FrameKind.BATCH, b"of attempt 2")
    other.links.poll()
    other.links.connect(addresses, [0])
    other.links.poll()

    assert [payload for *_, payload in other.received] == [b"of attempt 2"]
