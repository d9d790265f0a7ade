"""Data connections: what is sent arrives in order, and nothing is lost unnoticed."""

import random
import weakref

import pytest

from raystream.clock import SystemClock
from raystream.errors import ConnectionLostError
from raystream.runtime.frame import FrameKind
from raystream.runtime.links import LinkIdentity
from raystream.runtime.tls import tls_of_environment
from tests.certificates import Authority
from tests.unit.runtime.tcp_nodes import JOB, SECRET, Node, connect, drive


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    return tls_of_environment(Authority(tmp_path_factory.mktemp("authority")).environment("node"))


@pytest.fixture(params=["plain", "tls"])
def make(request, tls):
    nodes = []

    def make_node(slot, **identity):
        nodes.append(Node(slot, lambda: tls if request.param == "tls" else None, **identity))
        return nodes[-1]

    yield make_node
    for node in nodes:
        node.links.dispose()


@pytest.fixture
def pair(make):
    nodes = make(0), make(1)
    connect(*nodes)
    return nodes


# ---- frames -----------------------------------------------------------------


def test_frames_go_both_ways_in_order(pair):
    one, other = pair
    for n in range(200):
        one.links.send(1, n, FrameKind.BATCH, b"%d" % n)
        other.links.send(0, n, FrameKind.CONTROL, b"-%d" % n)

    drive(pair, lambda: len(one.received) == len(other.received) == 200)

    assert other.received == [(0, n, FrameKind.BATCH, b"%d" % n) for n in range(200)]
    assert one.received == [(1, n, FrameKind.CONTROL, b"-%d" % n) for n in range(200)]


def test_large_frames_cross_while_both_sides_send(pair):
    one, other = pair
    rng = random.Random(1)
    payloads = [rng.randbytes(size) for size in (5_000_000, 1, 0, 300_000, 2_000_000)]
    for payload in payloads:
        one.links.send(1, 0, FrameKind.BATCH, payload)
        other.links.send(0, 0, FrameKind.BATCH, payload)

    drive(pair, lambda: len(one.received) == len(other.received) == len(payloads))

    assert [payload for *_, payload in one.received] == payloads
    assert [payload for *_, payload in other.received] == payloads


def test_many_small_frames_queue_behind_a_receiver_that_does_not_read(pair):
    one, other = pair
    payload = b"x" * 1000
    for n in range(10_000):
        one.links.send(1, n, FrameKind.BATCH, payload)

    drive(pair, lambda: len(other.received) == 10_000)

    assert [channel for _, channel, *_ in other.received] == list(range(10_000))


def test_three_slots_connect_with_one_connection_per_pair(make):
    nodes = make(2), make(0), make(1)
    connect(*nodes)
    for node in nodes:
        for peer in {0, 1, 2} - {node.slot}:
            node.links.send(peer, 0, FrameKind.BATCH, b"%d" % node.slot)

    drive(nodes, lambda: all(len(node.received) == 2 for node in nodes))

    for node in nodes:
        assert {(peer, payload) for peer, *_, payload in node.received} == {
            (peer, b"%d" % peer) for peer in {0, 1, 2} - {node.slot}
        }


def test_slot_without_peers_is_connected_at_once(make):
    node = make(0)
    assert not node.links.connected

    node.links.connect({}, [])

    assert node.links.connected


def test_frames_sent_with_the_proof_are_not_lost(make):
    """The dialer may send before the acceptor has looked at the proof, or has been told its peers."""
    dialer, acceptor = make(0), make(1)
    addresses = {0: dialer.address, 1: acceptor.address}
    dialer.links.connect(addresses, [1])
    drive([dialer, acceptor], lambda: dialer.links.connected)
    dialer.links.send(1, 3, FrameKind.BATCH, b"early")

    drive([dialer, acceptor], lambda: acceptor.received)

    assert acceptor.received == [(0, 3, FrameKind.BATCH, b"early")]


# ---- the end of a connection ------------------------------------------------


def test_peer_that_closes_is_a_lost_connection(pair):
    one, other = pair
    other.links.close()

    with pytest.raises(ConnectionLostError, match="connection to a slot broke") as lost:
        drive([one], lambda: False)

    assert lost.value.context["peer"] == 1


def test_frame_for_a_slot_without_connection_is_a_lost_connection(make):
    node = make(0)
    node.links.connect({}, [])

    with pytest.raises(ConnectionLostError, match="no connection"):
        node.links.send(1, 0, FrameKind.BATCH, b"x")


def test_slot_that_does_not_listen_is_a_lost_connection(make):
    node, gone = make(0), make(1)
    gone.links.close()
    node.links.connect({1: gone.address}, [1])

    with pytest.raises(ConnectionLostError):
        drive([node], lambda: False)


def test_same_links_serve_the_next_attempt(pair):
    for node in pair:
        node.links.close()
        assert not node.links.connected
        node.received.clear()
        node.listen(attempt=2, secret=b"t" * 32)
    connect(*pair)
    pair[0].links.send(1, 0, FrameKind.BATCH, b"second")

    drive(pair, lambda: pair[1].received)

    assert pair[1].received == [(0, 0, FrameKind.BATCH, b"second")]


# ---- waiting ----------------------------------------------------------------


def test_wake_interrupts_the_next_wait_and_only_that(make):
    node, clock = make(0), SystemClock()
    node.links.wake()
    node.links.wake()
    node.links.wait(None)

    began_ms = clock.monotonic_ms()
    node.links.wait(20)
    assert clock.monotonic_ms() - began_ms > 15


def test_poll_does_not_take_the_wake_up_of_the_next_wait(make):
    """Mail may come between a loop's look at its mailbox and its poll; then the loop must not fall asleep."""
    node = make(0)
    node.links.wake()
    node.links.poll()

    node.links.wait(None)


def test_more_wakes_than_the_pipe_holds_do_not_block(make):
    node = make(0)
    for _ in range(5000):
        node.links.wake()

    node.links.wait(None)


def test_frame_ends_a_wait(pair):
    pair[0].links.send(1, 0, FrameKind.BATCH, b"x")

    pair[1].links.wait(None)
    drive(pair, lambda: pair[1].received)


def test_closed_links_hold_nothing_of_their_attempt(make):
    class Attempt:
        def take(self, peer, channel, kind, payload):
            pass

    node, attempt = make(0), Attempt()
    node.links.close()
    identity = LinkIdentity(job_id=JOB, attempt=2, slot=0, secret=SECRET, slot_count=1)
    node.links.listen(identity, attempt.take)
    remains = weakref.ref(attempt)
    del attempt
    assert remains() is not None

    node.links.close()

    assert remains() is None
