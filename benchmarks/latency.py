"""End-to-end latency on Ray at a fixed rate, beside a bare TCP ping-pong, and the CPU of an idle slot.

A datagen source stamps records with a monotonic time, `key_by` sends half of them to the other
slot, a sink takes the difference when it gets them.  The ping-pong sends 200 bytes back and
forth between two processes in the same run.  The idle slot belongs to a job whose source has
nothing to emit; it is compared with an actor that does nothing at all.

    python benchmarks/latency.py [--rate 10000] [--seconds 30]
"""

import argparse
import json
import multiprocessing
import os
import socket
import statistics
import tempfile
import time
from pathlib import Path

import ray

from raystream import KeyedProcessFunction, StreamEnvironment
from raystream.cluster.client import RayRunner
from raystream.connectors.basic import DiscardSink
from raystream.connectors.datagen import DatagenSource


class PassOn(KeyedProcessFunction):
    """Emits what it gets."""

    def process_element(self, value, ctx):
        return (value,)


class LatencySink:
    """Writes down how old each record is when its batch arrives."""

    def __init__(self, directory):
        self.directory = directory

    def open_writer(self, context):
        return LatencyWriter(Path(self.directory) / f"{context.subtask}.json")

    def open_committer(self, context):
        return None


class LatencyWriter:
    """The writer of one subtask."""

    def __init__(self, path):
        self.path = path
        self.ages_ms = []

    def start(self):
        pass

    def write(self, batch):
        now = time.monotonic()
        self.ages_ms.extend((now - stamp) * 1000 for _, stamp in batch.values)

    def prepare_commit(self, checkpoint_id):
        return []

    def sync(self):
        pass

    def keep(self, committables):
        pass

    def abort(self):
        pass

    def close(self):
        self.path.write_text(json.dumps(self.ages_ms))


def stamped(index):
    """Return a record that knows when it was made."""
    return index, time.monotonic()


def measure_latency(rate: int, seconds: int) -> list[float]:
    """Return the ages of all records but those of the first fifth, in ms."""
    with tempfile.TemporaryDirectory(prefix="rs") as scratch:
        env = StreamEnvironment(
            runner="ray",
            parallelism=2,
            execution_checkpointing_interval="1s",
            execution_checkpointing_dir=f"file://{scratch}/checkpoints",
        )
        marks = Path(scratch) / "marks"
        marks.mkdir()
        (
            env.from_source(
                DatagenSource(stamped, count=rate * seconds, rate=rate), name="clock", uid="clock"
            )
            .key_by(lambda record: record[0] % 1000)
            .process(PassOn(), name="pass on", uid="pass-on")
            .sink_to(LatencySink(str(marks)), name="latency", uid="latency")
        )
        env.execute("latency benchmark")
        ages = [json.loads(path.read_text()) for path in sorted(marks.iterdir())]
    return sorted(age for one in ages for age in one[len(one) // 5 :])


def echo(connection: socket.socket) -> None:
    """Send back what comes."""
    while data := connection.recv(4096):
        connection.sendall(data)


def measure_ping_pong(rounds: int = 20_000) -> list[float]:
    """Return the times of round trips of 200 bytes, in ms."""
    server = socket.create_server(("127.0.0.1", 0))
    ours = socket.create_connection(server.getsockname())
    theirs, _ = server.accept()
    for end in (ours, theirs):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    child = multiprocessing.get_context("fork").Process(target=echo, args=(theirs,), daemon=True)
    child.start()
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        ours.sendall(b"x" * 200)
        received = 0
        while received < 200:
            received += len(ours.recv(4096))
        times.append((time.perf_counter() - started) * 1000)
    child.kill()
    return sorted(times)


def cpu_s(pid: int) -> float:
    """Return the CPU time that a process has used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@ray.remote(num_cpus=0)
class BareActor:
    """Does nothing."""

    def pid(self):
        return os.getpid()


def measure_idle(seconds: int) -> tuple[float, float]:
    """Return the CPU share of an idle slot and of a bare actor, in percent of a core."""
    env = StreamEnvironment(runner="ray", parallelism=1)
    source = DatagenSource(stamped, rate=0.001)
    env.from_source(source, name="silent", uid="silent").key_by(lambda r: r[0] % 10).process(
        PassOn(), name="pass on", uid="pass-on"
    ).sink_to(DiscardSink(), name="discard", uid="discard")
    client = env.submit("idle benchmark")
    while client.status().value != "RUNNING":
        pass
    bare = BareActor.remote()
    bare_pid = ray.get(bare.pid.remote())
    (slot,) = RayRunner().attach(client.job_id).workers()
    before = [cpu_s(pid) for pid in (slot.pid, bare_pid)]
    os.waitid(os.P_PID, start_sleep(seconds), os.WEXITED)
    after = [cpu_s(pid) for pid in (slot.pid, bare_pid)]
    client.cancel()
    busy, nothing = (100 * (b - a) / seconds for a, b in zip(before, after, strict=True))
    return busy, nothing


def start_sleep(seconds: int) -> int:
    """Start a process that ends after some seconds, and return its id."""
    return os.spawnlp(os.P_NOWAIT, "sleep", "sleep", str(seconds))


def percentile(ordered: list[float], share: float) -> float:
    """Return a percentile of sorted values."""
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def main() -> None:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=int, default=10_000)
    parser.add_argument("--seconds", type=int, default=30)
    options = parser.parse_args()
    ping = measure_ping_pong()
    ages = measure_latency(options.rate, options.seconds)
    print(f"{'':36}{'p50 ms':>10}{'p99 ms':>10}{'max ms':>10}")
    for name, times in (
        ("TCP ping-pong, 200 bytes", ping),
        (f"source to sink, {options.rate:,} records/s", ages),
    ):
        print(f"{name:36}{statistics.median(times):10.3f}{percentile(times, 0.99):10.3f}{times[-1]:10.3f}")
    slot, nothing = measure_idle(options.seconds)
    print(f"CPU over {options.seconds} s: idle slot {slot:.2f} %, bare actor {nothing:.2f} % of a core")


if __name__ == "__main__":
    main()
