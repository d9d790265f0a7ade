"""The bytes of one data connection: as they are, or in TLS.

A stream never blocks: what cannot be done now raises `BlockingIOError`.  Knows one socket; what
the bytes mean is the business of `raystream.runtime.tcp_connection`.

TLS works on memory, and the socket is read and written here: a socket of the `ssl` module would take one
record of 16 KB per call, and would not say when it waits to write in order to read.
"""

import contextlib
import hashlib
import socket
import ssl
from collections.abc import Iterable
from itertools import islice
from typing import Protocol

from raystream.errors import ConnectionLostError
from raystream.runtime.tls import AUTHORITY, CERTIFICATE, USE_TLS, Tls

_BUFFERS_PER_WRITE_MAX = 64
_ENCRYPTED_AT_ONCE_BYTES = 256 << 10
_SIGN = f"give every node a {CERTIFICATE} that is signed by the authority in its {AUTHORITY}"
_SWITCH_ON = f"set {USE_TLS} and its files alike on every node, before ray start"


class Stream(Protocol):
    """A connected socket, as a connection sees it."""

    @property
    def ready(self) -> bool:
        """True when bytes may be sent."""

    @property
    def unsent(self) -> bool:
        """True when the stream itself waits for room in the socket."""

    @property
    def binding(self) -> bytes:
        """What both ends of this very stream know, and nobody between them; empty for bytes as they are."""

    def receive(self, size: int) -> bytes:
        """Return bytes that have come; empty at the end.

        Raises:
            BlockingIOError: nothing has come.
            OSError: the connection broke.
            ConnectionLostError: the peer is refused, or refuses this end.
        """

    def send(self, buffers: Iterable[memoryview]) -> int:
        """Send the first bytes of the buffers, and return how many; without buffers, only what is unsent.

        Raises:
            BlockingIOError: there is no room.
            OSError: the connection broke.
        """


class PlainStream:
    """Bytes as they are."""

    ready = True
    unsent = False
    binding = b""

    def __init__(self, sock: socket.socket) -> None:
        self.receive = sock.recv
        self._sendmsg = sock.sendmsg

    def send(self, buffers: Iterable[memoryview]) -> int:
        return self._sendmsg(islice(buffers, _BUFFERS_PER_WRITE_MAX))


class TlsStream:
    """Bytes in TLS.

    Args:
        sock: a socket that does not block; the one that dials may not be connected yet.
        tls: certificates and authority.
        dialed: True on the side that dials.
    """

    def __init__(self, sock: socket.socket, tls: Tls, *, dialed: bool) -> None:
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = tls.dialer if dialed else tls.acceptor
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=not dialed)
        self._certificate = tls.certificate
        self._dialed = dialed
        self._unsent = memoryview(b"")
        self.ready = False
        self.binding = b""
        if dialed:
            with contextlib.suppress(BlockingIOError):
                self._shake_hands()

    @property
    def unsent(self) -> bool:
        return bool(self._unsent) or self._outgoing.pending > 0

    def receive(self, size: int) -> bytes:
        data = self._sock.recv(size)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        try:
            if not self.ready:
                self._shake_hands()
            clear = self._decrypt(size)
        except ssl.SSLError as error:
            with contextlib.suppress(OSError):
                self._flush()  # The peer may learn why.
            raise self._refusal(error) from error
        if not clear and data:
            raise BlockingIOError
        return clear

    def send(self, buffers: Iterable[memoryview]) -> int:
        self._flush()
        if self.unsent or not self.ready:
            raise BlockingIOError
        parts, size = [], 0
        for buffer in buffers:
            parts.append(buffer[: _ENCRYPTED_AT_ONCE_BYTES - size])
            size += len(parts[-1])
            if size == _ENCRYPTED_AT_ONCE_BYTES:
                break
        taken = self._tls.write(parts[0] if len(parts) == 1 else b"".join(parts)) if size else 0
        self._flush()
        return taken

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            raise BlockingIOError from None
        finally:
            with contextlib.suppress(OSError):  # Not connected yet, or the next receive says more.
                self._flush()
        peer = self._tls.getpeercert(binary_form=True)
        assert peer is not None, "a certificate is required"
        ends = (self._certificate, peer) if self._dialed else (peer, self._certificate)
        self.binding = b"".join(hashlib.sha256(end).digest() for end in ends)
        self.ready = True

    def _decrypt(self, size: int) -> bytes:
        """Return all that the records that have come hold; TLS keeps back only the start of the next one."""
        parts = []
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError, ssl.SSLEOFError):
            while part := self._tls.read(size):
                parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _flush(self) -> None:
        """Write what the socket takes of what is encrypted."""
        while self.unsent:
            if not self._unsent:
                self._unsent = memoryview(self._outgoing.read())
            try:
                self._unsent = self._unsent[self._sock.send(self._unsent) :]
            except BlockingIOError:
                return

    def _refusal(self, error: ssl.SSLError) -> ConnectionLostError:
        """Return what is wrong with the peer, or with this end in its eyes."""
        reason = error.reason or str(error)
        if isinstance(error, ssl.SSLCertVerificationError):
            message = f"certificate of a slot is not of the authority in {AUTHORITY}"
            return ConnectionLostError(message, hint=_SIGN, cause=error.verify_message)
        if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
            return ConnectionLostError("peer presents no certificate", hint=_SIGN)
        if "_ALERT_" in reason:
            message = f"slot refuses the connection for its {CERTIFICATE}"
            return ConnectionLostError(message, hint=_SIGN, cause=reason)
        if self.ready:
            return ConnectionLostError("connection to a slot broke", cause=reason)
        if isinstance(error, ssl.SSLEOFError):
            return ConnectionLostError("slot closed the connection before it was encrypted", hint=_SWITCH_ON)
        return ConnectionLostError("slot does not speak TLS", hint=_SWITCH_ON, cause=reason)
