"""What a job survives, and how long it takes to go on: random faults on a Ray cluster of three nodes.

A job counts the records of each key, exactly once, on RocksDB, with checkpoints every second on an S3 server.
While it runs, processes of workers and of the job master are killed or stopped, a node is killed, the disk is
filled, the S3 server goes away.  The output is then compared with what plain counting gives.

    python benchmarks/chaos.py [--seconds 600] [--seed 1] [--spares 0] [--faults kill-worker,kill-node]

*Recovery* is the time from the fault to the first record that an attempt which began after it has processed;
what is *replayed* was processed more than once.  Full disks need the right to mount one of their own.
"""

import argparse
import json
import os
import random
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from raystream import JobStatus, KeyedProcessFunction, StreamEnvironment, ValueStateDescriptor
from raystream.connectors.datagen import DatagenSource
from raystream.connectors.files import FileSink

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

    from raystream.cluster.client import RayJobHandle
    from tests.services.servers import FaultyStore

ROOT = Path(__file__).resolve().parent.parent
KEYS = 1_000
RATE = 2_000
SLOTS = 2
NODES = 2
"""Those that have room for slots, each for all of them; the head is a third one."""
BUCKET = "chaos"
DISK_BYTES = 512 << 20
DISK_FULL_S = 5.0
RECOVERY_S_MAX = 120.0
PAUSE_S = (1.0, 5.0)
NODE = {"num_cpus": SLOTS, "object_store_memory": 100 << 20}
TRACE = "<d"

WEIGHTS = {
    "kill-worker": 8, "kill-master": 4, "kill-node": 2,
    "stop-worker": 1, "stop-master": 1, "full-disk": 1, "s3-away": 1,
}  # fmt: skip
"""How often each fault is drawn, beside the others."""


class Count(KeyedProcessFunction):
    """Emits each key with how often it has come, and writes down when it processes a record."""

    def __init__(self, traces: str) -> None:
        self.traces = traces

    def open(self, ctx):
        self.seen = ctx.get_state(ValueStateDescriptor("seen", int, default=0))
        name = f"{ctx.attempt}-{ctx.subtask_index}-{os.getpid()}"
        self.trace = os.open(f"{self.traces}/{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def process_element(self, value, ctx):
        os.write(self.trace, struct.pack(TRACE, time.time()))
        self.seen.update(self.seen.value() + 1)
        yield ctx.current_key, self.seen.value()

    def close(self):
        os.close(self.trace)


class Trace(NamedTuple):
    """When one subtask processed records in one attempt, wall time in seconds."""

    attempt: int
    times: list[float]


@dataclass
class Injected:
    """A fault that has happened."""

    fault: str
    at: float
    until: float
    """Wall time at which it was over; at once for a kill."""
    attempt: int
    restarted: bool = False
    recovery_s: float = 0.0


@dataclass
class World:
    """What faults happen to."""

    cluster: "Cluster"
    store: "FaultyStore"
    handle: "RayJobHandle"
    disk: Path
    traces: Path
    options: argparse.Namespace
    rng: random.Random
    nodes: list = field(default_factory=list)
    injected: list[Injected] = field(default_factory=list)

    @property
    def attempt(self) -> int:
        """The newest attempt that has processed a record."""
        return max((attempt_of(path) for path in self.written()), default=0)

    def written(self) -> list[Path]:
        """Return the traces of the subtasks that have processed a record."""
        return [path for path in self.traces.iterdir() if path.stat().st_size]

    def worker(self) -> int:
        """Return the process of a slot, any of them, and not one that stands by."""
        newest = self.attempt
        working = {int(path.name.rpartition("-")[2]) for path in self.written() if attempt_of(path) == newest}
        return self.rng.choice(sorted(working.intersection(self.pids("SlotActor"))))

    def master(self) -> int:
        """Return the process of the job master."""
        return self.pids("JobMasterActor")[0]

    def pids(self, title: str) -> list[int]:
        """Return the living processes of this cluster's actors of one class, as soon as there is one."""
        deadline = time.monotonic() + RECOVERY_S_MAX
        while time.monotonic() < deadline:
            if found := list(self._actors(title)):
                return found
            time.sleep(0.1)
        raise TimeoutError(f"no process of a {title}")

    def _actors(self, title: str) -> Iterator[int]:
        nodes = self.cluster.list_all_nodes()
        raylets = {info.process.pid for node in nodes for info in node.all_processes["raylet"]}
        for directory in Path("/proc").iterdir():
            if directory.name.isdigit():
                try:
                    name = (directory / "cmdline").read_bytes()
                    parent = int((directory / "stat").read_text().rpartition(")")[2].split()[1])
                except (FileNotFoundError, ProcessLookupError):
                    continue
                if parent in raylets and title.encode() in name:
                    yield int(directory.name)


def attempt_of(trace: Path) -> int:
    """Return the attempt in which a trace was written."""
    return int(trace.name.partition("-")[0])


def kill_node(world: World) -> None:
    """End everything on a node with slots; the other one has room for all of them."""
    used = {worker.node_id for worker in world.handle.workers()}
    node = world.nodes.pop(next(i for i, node in enumerate(world.nodes) if node.node_id in used))
    world.cluster.remove_node(node, allow_graceful=False)


def stop(world: World, pid: int) -> None:
    """Let a process stand still for a while."""
    os.kill(pid, signal.SIGSTOP)
    time.sleep(world.options.stopped_seconds)
    os.kill(pid, signal.SIGCONT)


def full_disk(world: World) -> None:
    """Leave no byte on the disk of local state and output."""
    filler = world.disk / "filler"
    try:
        with filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 20))
    except OSError:
        time.sleep(DISK_FULL_S)
    filler.unlink()


def s3_away(world: World) -> None:
    """Let the S3 server end every connection."""
    world.store.faults({"match": "", "kind": "hang-up"})
    time.sleep(world.options.away_seconds)
    world.store.faults()


FAULTS = {
    "kill-worker": lambda world: os.kill(world.worker(), signal.SIGKILL),
    "kill-master": lambda world: os.kill(world.master(), signal.SIGKILL),
    "kill-node": kill_node,
    "stop-worker": lambda world: stop(world, world.worker()),
    "stop-master": lambda world: stop(world, world.master()),
    "full-disk": full_disk,
    "s3-away": s3_away,
}


def inject(world: World, names: list[str]) -> None:
    """Let one fault after the other happen until the time is over or the job has ended.

    Every fault of the list happens once, in random order, then they are drawn.
    """
    wait_for_records(world, Injected("start", at=0.0, until=0.0, attempt=0))
    began, first = time.monotonic(), world.rng.sample(names, len(names))
    while first or time.monotonic() < began + world.options.seconds:
        name = first.pop() if first else world.rng.choices(names, [WEIGHTS[one] for one in names])[0]
        time.sleep(world.rng.uniform(*PAUSE_S))
        if world.handle.view().status.terminal:
            break
        injected = Injected(name, at=time.time(), until=0.0, attempt=world.attempt)
        world.injected.append(injected)
        print(f"{time.monotonic() - began:6.0f} s  {name}", file=sys.stderr, flush=True)
        FAULTS[name](world)
        injected.until = time.time()
        wait_for_records(world, injected)
        while len(world.nodes) < NODES:
            world.nodes.append(world.cluster.add_node(**NODE))


def wait_for_records(world: World, injected: Injected) -> None:
    """Wait until records are processed again: after a kill by a new attempt."""
    deadline = time.monotonic() + RECOVERY_S_MAX
    while time.monotonic() < deadline:
        newest = max((path.stat().st_mtime for path in world.written()), default=0.0)
        new_attempt = world.attempt > injected.attempt
        if newest > injected.until and (new_attempt or not injected.fault.startswith("kill")):
            return
        if world.handle.view().status.terminal:
            return
        time.sleep(0.1)
    raise TimeoutError(f"no record after {injected}: {world.handle.view()}")


# ---- the job ----------------------------------------------------------------------


def submit(address: str, scratch: Path, records: int, *, spares: int) -> str:
    """Start the job and return its id."""
    env = StreamEnvironment(
        runner="ray",
        parallelism=SLOTS,
        slot_cpus=1,
        slot_spares=spares,
        state_backend_type="rocksdb",
        state_backend_rocksdb_localdir=str(scratch / "disk" / "state"),
        execution_checkpointing_interval="1s",
        execution_checkpointing_dir=f"s3://{BUCKET}/checkpoints",
        execution_checkpointing_num_retained=2,
        execution_checkpointing_tolerable_failed_checkpoints=1_000_000,
        restart_strategy_type="fixed-delay",
        restart_strategy_fixed_delay_attempts=1_000_000,
        restart_strategy_fixed_delay_delay=0,
    )
    os.environ["RAY_ADDRESS"] = address
    source = DatagenSource(lambda index: index, count=records, rate=RATE)
    counts = env.from_source(source, uid="numbers").key_by(lambda number: number % KEYS)
    counted = counts.process(Count(str(scratch / "traces")), uid="count")
    counted.sink_to(FileSink.json_lines(str(scratch / "disk" / "out")), uid="out")
    return env.submit("chaos").job_id


def difference(out: Path, records: int) -> str:
    """Return how the output differs from what counting each record once gives; empty when it does not."""
    expected = {key: (records - key + KEYS - 1) // KEYS for key in range(KEYS)}
    counts = defaultdict(list)
    for part in out.glob("part-*"):
        for key, count in map(json.loads, part.read_text().splitlines()):
            counts[key].append(count)
    wrong = [key for key, n in expected.items() if sorted(counts.pop(key, [])) != list(range(1, n + 1))]
    return f"wrong counts of keys {wrong[:5]}, unknown keys {list(counts)[:5]}" if wrong or counts else ""


def traces_in(directory: Path) -> list[Trace]:
    """Read all traces."""
    return [
        Trace(attempt_of(path), [moment for (moment,) in struct.iter_unpack(TRACE, path.read_bytes())])
        for path in directory.iterdir()
    ]


def find_recoveries(injected: list[Injected], traces: list[Trace]) -> None:
    """Fill in which faults led to a new attempt, and how long it took to process its first record."""
    ends = [one.at for one in injected[1:]] + [float("inf")]
    for one, next_at in zip(injected, ends, strict=True):
        first = [trace.times[0] for trace in traces if trace.attempt > one.attempt and trace.times]
        later = [moment for moment in first if one.at < moment < next_at]
        one.restarted = bool(later)
        one.recovery_s = min(later, default=one.at) - one.at


def report(injected: list[Injected], traces: list[Trace], records: int, restarts: int) -> None:
    """Print what has happened."""
    find_recoveries(injected, traces)
    print(f"{'fault':<14}{'injected':>10}{'recovered':>11}{'median s':>10}{'longest s':>11}")
    for name in [*WEIGHTS, "all"]:
        ones = [one for one in injected if name in (one.fault, "all")]
        times = [one.recovery_s for one in ones if one.restarted]
        shown = f"{statistics.median(times):>10.2f}{max(times):>11.2f}" if times else f"{'-':>10}{'-':>11}"
        if ones:
            print(f"{name:<14}{len(ones):>10}{len(times):>11}{shown}")
    processed = sum(len(trace.times) for trace in traces)
    print(f"{records:,} records, {restarts} restarts, {processed - records:,} records replayed")


# ---- the whole ----------------------------------------------------------------------


@contextmanager
def own_disk(directory: Path) -> Iterator[bool]:
    """Mount a small disk of its own on a directory; yield whether that was possible."""
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(directory)]
    mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(directory)], check=False)


@contextmanager
def three_nodes() -> Iterator["Cluster"]:
    """Run a cluster whose head has no room for slots, and look soon for nodes that have died."""
    soon = {
        "health_check_initial_delay_ms": 0,
        "health_check_period_ms": 500,
        "health_check_timeout_ms": 1000,
        "health_check_failure_threshold": 3,
    }
    from ray.cluster_utils import Cluster

    from raystream.cluster.connection import disconnect

    alone = {"include_dashboard": False, "dashboard_port": 0, "dashboard_agent_listen_port": 0, "num_cpus": 0}
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, **alone, "_system_config": soon})
    try:
        yield cluster
    finally:
        disconnect()
        cluster.shutdown()


def run(options: argparse.Namespace, scratch: Path, stack: ExitStack) -> bool:
    """Run the job under faults, print what came of it, and return whether the output is right."""
    from raystream.cluster.client import RayRunner
    from tests.services.servers import moto

    store = stack.enter_context(moto(scratch))
    os.environ.update(store.environment)
    store.client.create_bucket(Bucket=BUCKET)
    names = options.faults.split(",")
    if not stack.enter_context(own_disk(scratch / "disk")) and "full-disk" in names:
        print("skipped: full-disk, since no disk could be mounted", file=sys.stderr)
        names.remove("full-disk")
    cluster = stack.enter_context(three_nodes())
    (scratch / "traces").mkdir()
    nodes = [cluster.add_node(**NODE) for _ in range(NODES)]
    records = int(options.seconds * RATE)
    job_id = submit(cluster.address, scratch, records, spares=options.spares)
    handle = RayRunner().attach(job_id, address=cluster.address)
    places = scratch / "disk", scratch / "traces"
    world = World(cluster, store, handle, *places, options, random.Random(options.seed), nodes)
    inject(world, names)
    view = handle.wait(None, until=frozenset(), listener=lambda *_: None)
    report(world.injected, traces_in(scratch / "traces"), records, view.restarts)
    wrong = difference(scratch / "disk" / "out", records)
    wrong = wrong if view.status is JobStatus.FINISHED else f"job is {view.status.value}: {view.error}"
    print(f"WRONG: {wrong}" if wrong else "output is exactly the reference")
    return not wrong


def main() -> None:
    """Run and exit with 1 when the output is wrong."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--spares", type=int, default=1, help="slot.spares of the job")
    parser.add_argument("--stopped-seconds", type=float, default=20.0)
    parser.add_argument("--away-seconds", type=float, default=15.0, help="how long the S3 server is away")
    parser.add_argument("--faults", default=",".join(FAULTS), help="which faults, with commas between them")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    # Ray reads them when it is imported.
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    with tempfile.TemporaryDirectory(prefix="rs", ignore_cleanup_errors=True) as name, ExitStack() as stack:
        sys.exit(0 if run(options, Path(name), stack) else 1)


if __name__ == "__main__":
    main()
