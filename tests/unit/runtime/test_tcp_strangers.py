"""Peers prove who they are; strangers do no harm, and take no place of a peer for long."""

import os

import pytest

from raystream.errors import ConnectionLostError, ProtocolError
from raystream.runtime import tcp
from raystream.runtime.frame import FrameKind, FrameWriter
from raystream.runtime.tcp import HANDSHAKE_TIMEOUT_MS
from tests.unit.runtime.tcp_nodes import Node, RawDialer, begin, connect, drive


@pytest.fixture
def make():
    nodes = []

    def make_node(slot, **identity):
        nodes.append(Node(slot, **identity))
        return nodes[-1]

    yield make_node
    for node in nodes:
        node.links.dispose()


@pytest.fixture
def pair(make):
    nodes = make(0), make(1)
    connect(*nodes)
    return nodes


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


@pytest.fixture
def dial():
    """Return a function that connects with a node and says nothing."""
    dialers = []

    def connect_with(node, **identity):
        dialers.append(RawDialer(node, **identity))
        for _ in range(5):
            node.links.poll()
        return dialers[-1]

    yield connect_with
    for dialer in dialers:
        dialer.sock.close()


def test_hundred_peers_that_are_slow_to_speak_all_get_through(make, dial):
    acceptor = make(100, slots=101)
    peers = [dial(acceptor, slot=slot) for slot in range(100)]

    for peer in peers:
        peer.shake_hands([acceptor])
    acceptor.links.connect({}, range(100))

    drive([acceptor], lambda: acceptor.links.connected)
    assert not any(peer.closed() for peer in peers)


def test_strangers_that_say_nothing_make_others_wait_and_not_go(make, dial, monkeypatch):
    monkeypatch.setattr(tcp, "_STRANGERS_MAX", 1)
    acceptor = make(1, slots=2)
    silent = [dial(acceptor) for _ in range(3)]
    peer = dial(acceptor)
    peer.sock.sendall(b"RAYS")
    for _ in range(20):
        acceptor.links.poll()
    assert not any(one.closed() for one in [*silent, peer])

    acceptor.clock.now_ms += HANDSHAKE_TIMEOUT_MS - 1
    acceptor.links.poll()
    assert not any(stranger.closed() for stranger in silent)
    acceptor.clock.now_ms += 1

    drive([acceptor], lambda: all(stranger.closed() for stranger in silent))
    drive([acceptor], lambda: acceptor.links.next_deadline_ms() is not None)
    assert acceptor.links.next_deadline_ms() == acceptor.clock.monotonic_ms() + HANDSHAKE_TIMEOUT_MS
    assert not peer.closed()


def test_stranger_that_goes_makes_room_for_the_next(make, dial, monkeypatch):
    monkeypatch.setattr(tcp, "_STRANGERS_MAX", 0)
    acceptor = make(1, slots=1)
    stranger, peer = dial(acceptor), dial(acceptor)
    stranger.sock.close()

    peer.shake_hands([acceptor])
    acceptor.links.connect({}, [0])

    drive([acceptor], lambda: acceptor.links.connected)


def test_peer_that_has_spoken_while_the_slot_was_busy_is_not_silent(make, dial):
    """User code may hold the loop for longer than a handshake may take."""
    dialer, acceptor = make(0), make(1)
    begin(dialer, acceptor)
    drive([acceptor], lambda: acceptor.links.next_deadline_ms() is not None)
    dialer.links.poll()

    acceptor.clock.now_ms += 2 * HANDSHAKE_TIMEOUT_MS

    drive([acceptor, dialer], lambda: acceptor.links.connected and dialer.links.connected)
    assert acceptor.links.next_deadline_ms() is None


def test_stranger_that_says_a_byte_now_and_then_gets_no_more_time(make, dial, monkeypatch, caplog):
    monkeypatch.setattr(tcp, "_STRANGERS_MAX", 0)
    acceptor = make(1, slots=1)
    stranger, peer = dial(acceptor), dial(acceptor)
    assert "others wait" in caplog.text
    for byte in (b"R", b"A"):
        stranger.sock.sendall(byte)
        for _ in range(5):
            acceptor.links.poll()
        assert not stranger.closed()
        acceptor.clock.now_ms += HANDSHAKE_TIMEOUT_MS / 2

    drive([acceptor], stranger.closed)
    peer.shake_hands([acceptor])
    acceptor.links.connect({}, [0])

    drive([acceptor], lambda: acceptor.links.connected)


def test_stranger_that_greets_gets_time_for_its_proof_once(make, dial):
    acceptor = make(1)
    stranger = dial(acceptor)
    acceptor.clock.now_ms += HANDSHAKE_TIMEOUT_MS - 1
    until_ms = acceptor.clock.now_ms + HANDSHAKE_TIMEOUT_MS
    stranger.greet()
    for byte in (b"", b"x", b"x"):
        stranger.sock.sendall(byte)
        drive([acceptor], lambda: not acceptor.links.poll())
        assert acceptor.links.next_deadline_ms() == until_ms
        acceptor.clock.now_ms += 1

    acceptor.clock.now_ms += HANDSHAKE_TIMEOUT_MS
    drive([acceptor], stranger.closed)


def test_second_connection_of_a_slot_breaks_the_protocol(pair):
    with RawDialer(pair[1]) as again:
        with pytest.raises(ProtocolError, match="second connection of a slot"):
            again.shake_hands(pair)
        drive([pair[0]], again.closed)


def test_slot_of_a_higher_id_does_not_dial(make):
    acceptor = make(1)
    with RawDialer(acceptor, slot=2) as dialer, pytest.raises(ProtocolError, match="second connection"):
        dialer.shake_hands([acceptor])


def test_frame_of_another_attempt_breaks_the_protocol(make):
    acceptor = make(1)
    with RawDialer(acceptor) as dialer:
        dialer.shake_hands([acceptor])
        header = FrameWriter(2).header(0, FrameKind.BATCH, b"x")
        dialer.sock.sendall(header + b"x")

        with pytest.raises(ProtocolError, match="another attempt"):
            drive([acceptor], lambda: False)
