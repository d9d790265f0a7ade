"""Slots' links that a test polls by hand, and a dialer that breaks the rules on demand."""

import contextlib
import hmac
import os
import socket
import struct

from raystream.runtime.links import LinkIdentity
from raystream.runtime.stream import PlainStream, TlsStream
from raystream.runtime.tcp import TcpLinks
from raystream.testing.source_run import ManualClock

POLLS_MAX = 5000
JOB = "0123456789abcdef" * 2
SECRET = b"s" * 32


class Node:
    """One slot's links, and what came in."""

    def __init__(self, slot, tls=lambda: None, **identity):
        self.slot = slot
        self.received = []
        self.clock = ManualClock()
        self.links = TcpLinks("127.0.0.1", self.clock, tls=tls)
        self.listen(**identity)

    def listen(self, *, job=JOB, attempt=1, secret=SECRET, slots=3):
        identity = LinkIdentity(job_id=job, attempt=attempt, slot=self.slot, secret=secret, slot_count=slots)
        self.address = self.links.listen(identity, self._handle)

    def _handle(self, peer, channel, kind, payload):
        self.received.append((peer, channel, kind, bytes(payload)))


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


class RawDialer:
    """Speaks the handshake by hand, and wrongly on demand."""

    def __init__(self, node, slot=0):
        host, port = node.address.split("|")
        self.slot, self.receiver = slot, node.slot
        self.sock = socket.create_connection((host, int(port)), timeout=10)
        self.sock.setblocking(False)

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.sock.close()

    def greet(self):
        hello = struct.pack(
            "<8sH32sIII32s", b"RAYSTRM\x00", 1, JOB.encode(), 1, self.slot, self.receiver, os.urandom(32)
        )
        self.sock.sendall(hello)
        return hello

    def shake_hands(self, nodes, *, secret=SECRET):
        hello = self.greet()
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


class Relay:
    """Stands between two nodes, hands on what they say, and keeps it.

    Args:
        address: where the node listens that is dialed in the end.
        tls: ends the encryption at both sides; None to hand on the bytes as they are.
    """

    def __init__(self, address, tls=None):
        host, port = address.split("|")
        self.seen = bytearray()
        self._target = host, int(port)
        self._tls = tls
        self._listener = socket.create_server((host, 0))
        self._listener.setblocking(False)
        self.address = f"{host}|{self._listener.getsockname()[1]}"
        self._sockets, self._streams, self._pending = [], [], [b"", b""]

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        for sock in (self._listener, *self._sockets):
            sock.close()

    def move(self):
        """Hand on what has come."""
        if not self._streams:
            self._accept()
        for end, stream in enumerate(self._streams):
            with contextlib.suppress(BlockingIOError):
                self._pending[1 - end] += stream.receive(1 << 20)
            self.seen += self._pending[1 - end]
        for end, stream in enumerate(self._streams):
            with contextlib.suppress(BlockingIOError):
                while self._pending[end] or stream.unsent:
                    taken = stream.send([memoryview(self._pending[end])])
                    self._pending[end] = self._pending[end][taken:]

    def _accept(self):
        try:
            inbound, _ = self._listener.accept()
        except BlockingIOError:
            return
        outbound = socket.create_connection(self._target)
        self._sockets = [inbound, outbound]
        for sock in self._sockets:
            sock.setblocking(False)
        if self._tls is None:
            self._streams = [PlainStream(sock) for sock in self._sockets]
        else:
            self._streams = [
                TlsStream(sock, self._tls, dialed=dialed)
                for sock, dialed in zip(self._sockets, (False, True), strict=True)
            ]
