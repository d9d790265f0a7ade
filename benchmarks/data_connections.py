"""Throughput of one data connection between two processes, with TLS by Ray's variables and without.

One process sends frames as fast as the other takes them, with at most a few MiB on their way, as flow
control by credit would have it.  Rounds alternate between plain and encrypted; medians are compared.

    python benchmarks/data_connections.py [--rounds 5] [--seconds 3]

Certificates are made with `openssl`, which must be installed.
"""

import argparse
import contextlib
import multiprocessing
import os
import statistics
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path

from raystream.clock import SystemClock
from raystream.errors import ConnectionLostError
from raystream.runtime.frame import FrameKind
from raystream.runtime.links import LinkIdentity
from raystream.runtime.tcp import TcpLinks
from raystream.runtime.tls import tls_of_environment

HOST = "127.0.0.1"
WINDOW_BYTES = 4 << 20
FRAME_BYTES = (1 << 10, 16 << 10, 256 << 10)
ACK = b"taken"
OPENSSL = [
    *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
    *("-nodes", "-subj", "/CN=raystream", "-days", "1"),
]


def make_links(slot, environment, handler):
    """Return the links of a slot that listens, and its address."""
    links = TcpLinks(HOST, SystemClock(), tls=partial(tls_of_environment, environment))
    identity = LinkIdentity(job_id="0" * 32, attempt=1, slot=slot, secret=b"s" * 32, slot_count=2)
    return links, links.listen(identity, handler)


def receive(pipe, environment, frame_bytes):
    """Take frames until the sender goes, and say so after each quarter of the window."""
    step = max(WINDOW_BYTES // 4 // frame_bytes, 1)
    taken = 0

    def count(*_):
        nonlocal taken
        taken += 1
        if taken % step == 0:
            links.send(0, 0, FrameKind.CONTROL, ACK)

    links, address = make_links(1, environment, count)
    pipe.send(address)
    links.connect({}, [0])
    with contextlib.suppress(ConnectionLostError):
        while True:
            links.wait(None)
            links.poll()
    links.dispose()


def measure(environment, frame_bytes, seconds):
    """Return MiB/s, and CPU seconds of the sender for each GiB."""
    pipe, theirs = multiprocessing.Pipe()
    receiver = multiprocessing.Process(target=receive, args=(theirs, environment, frame_bytes))
    receiver.start()
    step = max(WINDOW_BYTES // 4 // frame_bytes, 1)
    room = 4 * step
    sent = 0

    def more_room(*_):
        nonlocal room
        room += step

    links, _ = make_links(0, environment, more_room)
    links.connect({1: pipe.recv()}, [1])
    while not links.connected:
        links.wait(50)
        links.poll()
    payload = os.urandom(frame_bytes)
    began, began_cpu = time.monotonic(), time.process_time()
    while time.monotonic() < began + seconds:
        while room:
            links.send(1, 0, FrameKind.BATCH, payload)
            room -= 1
            sent += 1
        links.wait(50)
        links.poll()
    took, cpu = time.monotonic() - began, time.process_time() - began_cpu
    links.dispose()
    receiver.join()
    mebibytes = sent * frame_bytes / (1 << 20)
    return mebibytes / took, cpu / (mebibytes / 1024)


def certificates(directory):
    """Return Ray's variables for a node whose certificate is its own authority."""
    certificate, key = directory / "node.pem", directory / "node.key"
    subprocess.run(
        [*OPENSSL, "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    files = {
        "RAY_TLS_SERVER_CERT": certificate,
        "RAY_TLS_SERVER_KEY": key,
        "RAY_TLS_CA_CERT": certificate,
    }
    return {"RAY_USE_TLS": "1"} | {variable: str(path) for variable, path in files.items()}


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        ways = {"plain": {}, "TLS": certificates(Path(directory))}
        for frame_bytes in FRAME_BYTES:
            rounds = {way: [] for way in ways}
            for _ in range(arguments.rounds):
                for way, environment in ways.items():
                    rounds[way].append(measure(environment, frame_bytes, arguments.seconds))
            for way, figures in rounds.items():
                speed, cpu = (statistics.median(column) for column in zip(*figures, strict=True))
                print(
                    f"{frame_bytes >> 10:4d} KiB  {way:5s}  {speed:7.0f} MiB/s  {cpu:.2f} s of CPU a GiB sent"
                )


if __name__ == "__main__":
    main()
