"""A moto server that breaks as it is told; a process of its own: `python faulty_s3.py PORT`.

`PUT /-faults` takes a JSON list of faults, instead of those before; each request meets the first one that
is meant for it.  `GET /-requests` returns what was asked since then, as `METHOD path?query`.
"""

import json
import re
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, run_simple


@dataclass
class Fault:
    """What happens to requests that match `METHOD path?query`, so many times; None for ever."""

    match: str
    kind: str
    """`refuse` (before it is done), `lose` (done, then refused), `delay`, `hang-up` (no answer), `cut` (half
    an answer) or `unconditional` (done without its conditions)."""
    times: int | None = None
    skip: int = 0
    """So many requests pass before."""
    status: int = 503
    code: str = "SlowDown"
    seconds: float = 0.0
    body: str = ""
    """Of the refusal, where it is no error of the usual form."""
    quote: bool = False
    """Whether the refusal repeats the headers of the request."""


class Server:
    """The WSGI application."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._requests: list[str] = []
        self._never = threading.Event()
        self._claiming = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        path = environ["PATH_INFO"]
        if path == "/-faults":
            return self._set_faults(environ, start_response)
        if path == "/-requests":
            start_response("200 OK", [])
            with self._lock:
                return [json.dumps(self._requests).encode()]
        request = f"{environ['REQUEST_METHOD']} {path}?{environ.get('QUERY_STRING', '')}"
        fault = self._fault_of(request)
        match fault and fault.kind:
            case "refuse":
                # Else the client meets a broken connection instead of the answer.
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                return self._refuse(fault, environ, start_response)
            case "lose":
                list(self._inner(environ, lambda *_: None))
                return self._refuse(fault, environ, start_response)
            case "hang-up":
                environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
                raise ConnectionResetError("planned")
            case "cut":
                return self._half(environ, start_response)
            case "delay":
                self._never.wait(fault.seconds)
            case "unconditional":
                environ.pop("HTTP_IF_NONE_MATCH", None)
        if "HTTP_IF_NONE_MATCH" not in environ:
            return self._inner(environ, start_response)
        with self._claiming:  # moto looks for an object and then makes it; S3 does both at once.
            return self._inner(environ, start_response)

    def _set_faults(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        with self._lock:
            self._faults = [Fault(**fault) for fault in json.loads(body)]
            self._requests.clear()
        start_response("200 OK", [])
        return []

    def _fault_of(self, request: str) -> Fault | None:
        with self._lock:
            self._requests.append(request)
            for fault in self._faults:
                if not re.search(fault.match, request) or fault.times == 0:
                    continue
                if fault.skip:
                    fault.skip -= 1
                    continue
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None

    def _half(self, environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        content = b"".join(self._inner(environ, start_response))
        yield content[: len(content) // 2]
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)

    def _refuse(self, fault: Fault, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        quoted = " ".join(str(environ[name]) for name in environ if name.startswith("HTTP_X_AMZ"))
        message = f"planned {quoted}" if fault.quote else "planned"
        body = f"<?xml version='1.0'?><Error><Code>{fault.code}</Code><Message>{message}</Message></Error>"
        body = fault.body or body
        content = b"" if environ["REQUEST_METHOD"] == "HEAD" else body.encode()
        headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(content)))]
        start_response(f"{fault.status} planned", headers)
        return [content]


class Quiet(WSGIRequestHandler):
    """Keeps connections open, and logs nothing."""

    protocol_version = "HTTP/1.1"

    def log(self, *_: object) -> None:
        """Say nothing: what breaks here is meant to."""


if __name__ == "__main__":
    run_simple(
        "127.0.0.1",
        int(sys.argv[1]),
        Server(DomainDispatcherApplication(create_backend_app)),
        threaded=True,
        request_handler=Quiet,
    )
