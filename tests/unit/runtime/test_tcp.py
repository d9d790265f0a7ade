"""Data connections: peers prove who they are, strangers do no harm, and nothing is lost unnoticed."""

import hmac
import os
import random
import socket
import struct

import pytest

from raystream.clock import SystemClock
from raystream.errors import ConnectionLostError, ProtocolError
from raystream.runtime import tcp
from raystream.runtime.frame import FrameKind, FrameWriter
from raystream.runtime.links import LinkIdentity
from raystream.runtime.tcp import TcpLinks

POLLS_MAX = 5000
JOB = "0123456789abcdef" * 2
SECRET = b"s" * 32


class Node:
    """One slot's links, and what came in."""

    def __init__(self, slot, *, job=JOB, attempt=1, secret=SECRET):
        self.slot = slot
        self.received = []
        self.links = TcpLinks("127.0.0.1")
        self.listen(job=job, attempt=attempt, secret=secret)

    def listen(self, *, job=JOB, attempt=1, secret=SECRET):
        identity = LinkIdentity(job_id=job, attempt=attempt, slot=self.slot, secret=secret)
        self.address = self.links.listen(identity, self._handle)

    def _handle(self, peer, channel, kind, payload):
        self.received.append((peer, channel, kind, bytes(payload)))


@pytest.fixture
def make():
    nodes = []

    def make_node(slot, **identity):
        nodes.append(Node(slot, **identity))
        return nodes[-1]

    yield make_node
    for node in nodes:
        node.links.dispose()


def drive(nodes, until):
    """Poll until a condition holds; the wait of a millisecond only lets the kernel keep up."""
    for _ in range(POLLS_MAX):
        for node in nodes:
            node.links.poll()
        if until():
            return
        nodes[0].links.wait(1)
    raise AssertionError("it did not happen")


def begin(*nodes):
    addresses = {node.slot: node.address for node in nodes}
    for node in nodes:
        node.links.connect(addresses, [slot for slot in addresses if slot != node.slot])


def connect(*nodes):
    begin(*nodes)
    drive(nodes, lambda: all(node.links.connected for node in nodes))


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


def test_frame_of_another_attempt_breaks_the_protocol(make):
    acceptor = make(1)
    with RawDialer(acceptor) as dialer:
        dialer.shake_hands([acceptor])
        header = FrameWriter(2).header(0, FrameKind.BATCH, b"x")
        dialer.sock.sendall(header + b"x")

        with pytest.raises(ProtocolError, match="another attempt"):
            drive([acceptor], lambda: False)


# ---- who is who -------------------------------------------------------------


@pytest.mark.parametrize("which", [0, 1])
def test_peer_without_the_secret_is_found_out_by_the_dialer(make, which):
    identities = [{}, {}]
    identities[which] = {"secret": b"wrong" * 6}
    nodes = [make(slot, **identity) for slot, identity in enumerate(identities)]
    begin(*nodes)

    with pytest.raises(ProtocolError, match="does not hold the attempt's secret"):
        drive(nodes, lambda: False)

    assert not nodes[1].links.connected


@pytest.mark.parametrize("identity", [{"job": "f" * 32}, {"attempt": 2}])
def test_peer_of_another_job_or_attempt_is_refused(make, identity):
    dialer, acceptor = make(0), make(1, **identity)
    begin(dialer, acceptor)

    with pytest.raises(ConnectionLostError):
        drive([acceptor, dialer], lambda: False)

    acceptor.links.poll()
    assert not acceptor.links.connected


class RawDialer:
    """Speaks the handshake by hand, and wrongly on demand."""

    def __init__(self, node, slot=0):
        host, port = node.address.split("|")
        self.slot, self.receiver = slot, node.slot
        self.sock = socket.create_connection((host, int(port)))
        self.sock.setblocking(False)

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.sock.close()

    def shake_hands(self, nodes, *, secret=SECRET):
        hello = struct.pack(
            "<8sH32sIII32s", b"RAYSTRM\x00", 1, JOB.encode(), 1, self.slot, self.receiver, os.urandom(32)
        )
        self.sock.sendall(hello)
        challenge = self.receive(nodes, 64)
        self.sock.sendall(hmac.digest(secret, b"dialer" + hello + challenge[:32], "sha256"))
        for _ in range(20):
            for node in nodes:
                node.links.poll()

    def receive(self, nodes, size):
        data = bytearray()

        def arrived():
            try:
                data.extend(self.sock.recv(size - len(data)))
            except BlockingIOError:
                return False
            return len(data) == size

        drive(nodes, arrived)
        return bytes(data)

    def closed(self):
        try:
            return self.sock.recv(1) == b""
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True


GARBAGE = [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + b"\r\n" * 100, bytes(200), os.urandom(5000)]


@pytest.mark.parametrize("garbage", GARBAGE, ids=["a browser", "zeros", "noise"])
def test_garbage_of_a_stranger_does_not_disturb(pair, garbage):
    with RawDialer(pair[0]) as stranger:
        stranger.sock.sendall(garbage)
        drive(pair, stranger.closed)
    pair[1].links.send(0, 0, FrameKind.BATCH, b"still here")

    drive(pair, lambda: pair[0].received)


def test_stranger_that_guesses_the_proof_is_cut_off(pair):
    with RawDialer(pair[1]) as stranger:
        stranger.shake_hands(pair, secret=b"guess")
        drive(pair, stranger.closed)

    assert all(node.links.connected for node in pair)
    assert pair[1].received == []


def test_stranger_that_goes_away_in_the_middle_does_not_disturb(pair):
    with RawDialer(pair[1]) as stranger:
        stranger.sock.sendall(b"RAYS")
        pair[1].links.poll()
    pair[0].links.send(1, 0, FrameKind.BATCH, b"still here")

    drive(pair, lambda: pair[1].received)


def test_strangers_that_say_nothing_are_bounded(pair, monkeypatch):
    monkeypatch.setattr(tcp, "_STRANGERS_MAX", 3)
    strangers = []
    try:
        for _ in range(5):
            strangers.append(RawDialer(pair[1]))
            for _ in range(5):
                pair[1].links.poll()
        drive(pair, lambda: strangers[0].closed() and strangers[1].closed())
        assert not any(stranger.closed() for stranger in strangers[2:])
    finally:
        for stranger in strangers:
            stranger.sock.close()


def test_second_connection_of_a_slot_breaks_the_protocol(pair):
    with RawDialer(pair[1]) as again:
        with pytest.raises(ProtocolError, match="second connection of a slot"):
            again.shake_hands(pair)
        drive([pair[0]], again.closed)


def test_slot_of_a_higher_id_does_not_dial(make):
    acceptor = make(1)
    with RawDialer(acceptor, slot=2) as dialer, pytest.raises(ProtocolError, match="second connection"):
        dialer.shake_hands([acceptor])


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
