"""TLS for data connections: who switches it on, and the two contexts that it takes.

The four variables are Ray's own, so that a cluster whose control traffic is encrypted needs nothing more for
its records.  Both sides of a connection present the node's certificate and verify the other's against the
same authority.  Names in certificates are not compared: slots find each other by address, and the handshake
inside (`raystream.runtime.tcp_connection`) proves that the peer is of this attempt, and binds that proof to
the two certificates.

Knows files; the bytes of a connection are `raystream.runtime.stream`'s business.
"""

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from raystream.errors import ConfigError

USE_TLS = "RAY_USE_TLS"
CERTIFICATE = "RAY_TLS_SERVER_CERT"
KEY = "RAY_TLS_SERVER_KEY"
AUTHORITY = "RAY_TLS_CA_CERT"
_FILES = (CERTIFICATE, KEY, AUTHORITY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """What both ends of connections with TLS need."""

    dialer: ssl.SSLContext
    acceptor: ssl.SSLContext
    certificate: bytes
    """What this node presents, in DER form."""


def tls_of_environment(environment: Mapping[str, str]) -> Tls | None:
    """Return what Ray's variables ask for; None where they do not switch TLS on.

    Raises:
        ConfigError: a variable or its file is missing, or the file is not what it should be.
    """
    if environment.get(USE_TLS, "0").strip().lower() not in ("1", "true"):
        return None
    for variable in _FILES:
        _check_file(variable, environment.get(variable, ""))
    certificate, key, authority = (environment[variable] for variable in _FILES)
    contexts = []
    for protocol in (ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS_SERVER):
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        _load_own(context, certificate, key)
        _load_authority(context, authority)
        contexts.append(context)
    dialer, acceptor = contexts
    acceptor.num_tickets = 0  # No connection is ever resumed.
    return Tls(dialer=dialer, acceptor=acceptor, certificate=_der(certificate))


def _check_file(variable: str, path: str) -> None:
    if not path:
        raise ConfigError(
            f"TLS is on and {variable} is not set",
            hint=f"set {', '.join(_FILES)} to files on every node, or {USE_TLS}=0 to do without TLS",
        )
    if not Path(path).is_file():
        raise ConfigError(f"file of {variable} does not exist", path=path)
    if not os.access(path, os.R_OK):
        raise ConfigError(f"file of {variable} may not be read", path=path)


def _load_own(context: ssl.SSLContext, certificate: str, key: str) -> None:
    try:
        # An encrypted key is an error: without a password OpenSSL would ask for one on a terminal.
        context.load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(
            f"{CERTIFICATE} and {KEY} are no certificate with its unencrypted key in PEM form",
            certificate=certificate,
            key=key,
            cause=str(error),
        ) from error


def _load_authority(context: ssl.SSLContext, authority: str) -> None:
    try:
        context.load_verify_locations(cafile=authority)
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(
            f"{AUTHORITY} is no certificate in PEM form", path=authority, cause=str(error)
        ) from error


def _der(path: str) -> bytes:
    """Return the first certificate of a PEM file, which is the node's own."""
    text = Path(path).read_text("ascii", errors="replace")
    begin = text.index(ssl.PEM_HEADER)
    return ssl.PEM_cert_to_DER_cert(text[begin : text.index(ssl.PEM_FOOTER) + len(ssl.PEM_FOOTER)])
