"""Addresses of Ray clusters: what they look like, and whether anything answers there.

    host:port            of the head: how machines of the cluster reach it
    http://host:port     of the dashboard on the head: how any other machine does

Ray tries for minutes before it says that there is nothing, so this is asked first, with the
opening of an HTTP/2 connection: every gRPC server answers it at once with its settings, before any
authentication.  Knows no Ray.
"""

import os
import re
import socket
import urllib.parse
from contextlib import suppress

from raystream.errors import ConfigError

TIMEOUT_S = 6.0

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_EMPTY_SETTINGS = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_FRAME_HEADER_BYTES = 9
_SETTINGS_TYPE = 4
_USER_INFO = re.compile(r"(?<=://)[^/?#\s]*@")


def checked_address(text: str) -> str:
    """Return an address in the form `host:port`, or `auto`.

    Raises:
        ConfigError: it is not one that a job can be run at.

    Example:
        >>> checked_address("head:6379")
        'head:6379'
    """
    if text == "auto":
        return text
    if "://" in text:
        raise ConfigError(
            "address is not that of a cluster's head",
            hint="give host:port of the head, as `ray start --head` prints it, on a machine of the cluster;"
            " `raystream submit` runs a job from any other one",
            address=without_credentials(text),
        )
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise ConfigError("address is not host:port", hint="for example --address head:6379", address=text)
    return text


def dashboard_url(text: str) -> str | None:
    """Return the address of a dashboard without a slash at its end, or None when it is not one.

    Example:
        >>> dashboard_url("http://head:8265/")
        'http://head:8265'
    """
    return text.rstrip("/") if text.startswith(("http://", "https://")) else None


def without_credentials(text: str) -> str:
    """Return a text without what its URLs say before the host: name and password of a user.

    Example:
        >>> without_credentials("https://ann:secret@head:8265/ is away")
        'https://head:8265/ is away'
    """
    return _USER_INFO.sub("", text)


def given_address(address: str | None) -> str | None:
    """Return the address that the user has given, as an option or else as RAY_ADDRESS, if any."""
    text = address or os.environ.get("RAY_ADDRESS") or "local"
    return None if text == "local" else text


def given_dashboard(address: str | None) -> str | None:
    """Return the address of the dashboard that the user has given, as an option or else as RAY_ADDRESS."""
    return dashboard_url(address or os.environ.get("RAY_ADDRESS") or "")


def answers_at_all(url: str, timeout_s: float = TIMEOUT_S) -> bool:
    """Return whether something listens where a URL points to."""
    parts = urllib.parse.urlsplit(url)
    with suppress(OSError, ValueError):
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout_s).close()
        return True
    return False


def answers_as_grpc(address: str, timeout_s: float = TIMEOUT_S) -> bool:
    """Return whether a gRPC server answers at `host:port`; with TLS, whether anything does."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout_s) as connection:
            if os.environ.get("RAY_USE_TLS") == "1":
                return True
            connection.sendall(_PREFACE + _EMPTY_SETTINGS)
            answer = b""
            while len(answer) < _FRAME_HEADER_BYTES:
                received = connection.recv(_FRAME_HEADER_BYTES)
                if not received:
                    return False
                answer += received
            return answer[3] == _SETTINGS_TYPE
    except OSError:
        return False
