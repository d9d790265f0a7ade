"""Whether a job that runs for long grows: the memory of every process, without what is mapped from files.

A job with one slot counts a thousand keys in batches of 10 ms, with a checkpoint every second.  The
growth is the slope of a line through the samples after the first quarter, in which caches and pools fill.

    python benchmarks/memory.py [--minutes 30] [--backend hashmap|rocksdb]
"""

import argparse
import os
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

from raystream import KeyedProcessFunction, StreamEnvironment, ValueStateDescriptor
from raystream.api.client import JobClient
from raystream.connectors.basic import DiscardSink
from raystream.connectors.datagen import DatagenSource

KEYS = 1_000
RATE = 2_000
SAMPLE_S = 10.0
PROCESSES = {
    "worker": "ray::SlotActor",
    "job master": "ray::JobMasterActor",
    "raylet": "/raylet",
    "GCS": "/gcs_server",
}
MIB = 1 << 20


class Count(KeyedProcessFunction):
    """Emits each key with how often it has come."""

    def open(self, ctx):
        self.seen = ctx.get_state(ValueStateDescriptor("seen", int, default=0))

    def process_element(self, value, ctx):
        self.seen.update(self.seen.value() + 1)
        yield ctx.current_key, self.seen.value()


def descendants() -> dict[int, str]:
    """Return the command lines of all processes below this one."""
    parents, commands = {}, {}
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                pid = int(directory.name)
                commands[pid] = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                parents[pid] = int((directory / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
    below = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= more
    return {pid: commands[pid] for pid in below - {os.getpid()}}


def anonymous_mib(pid: int) -> float:
    """Return the memory of a process that is not mapped from files; other processes have no part in it."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) * 1024 / MIB


def submit(scratch: str, backend: str) -> JobClient:
    """Start the job."""
    env = StreamEnvironment(
        runner="ray",
        parallelism=1,
        state_backend_type=backend,
        execution_buffer_timeout="10ms",
        execution_checkpointing_interval="1s",
        execution_checkpointing_dir=f"file://{scratch}/checkpoints",
    )
    numbers = env.from_source(DatagenSource(lambda index: index, rate=RATE), uid="numbers")
    counts = numbers.key_by(lambda number: number % KEYS).process(Count(), uid="count")
    counts.sink_to(DiscardSink(), uid="discard")
    return env.submit("memory benchmark")


def watch(minutes: float) -> dict[str, list[tuple[float, float]]]:
    """Return what each process has needed, by name, as minute and MiB."""
    samples = defaultdict(list)
    began = time.monotonic()
    pids = {}
    while (passed := time.monotonic() - began) < minutes * 60:
        if len(pids) < len(PROCESSES):
            known = descendants().items()
            pids = {name: pid for name, mark in PROCESSES.items() for pid, line in known if mark in line}
        for name, pid in pids.items():
            samples[name].append((passed / 60, anonymous_mib(pid)))
        time.sleep(SAMPLE_S)
    return samples


def report(samples: dict[str, list[tuple[float, float]]], minutes: float, checkpoints: int) -> None:
    """Print the memory at some times, and how it grows."""
    quarters = [minutes * part / 4 for part in range(1, 5)]
    print(f"{checkpoints} checkpoints; MiB")
    print(
        f"{'process':<12}" + "".join(f"{f'{minute:.1f} min':>10}" for minute in quarters) + f"{'MiB/h':>10}"
    )
    for name in PROCESSES:
        times, sizes = np.array(samples[name]).T
        at = [float(sizes[np.searchsorted(times, minute) - 1]) for minute in quarters]
        late = times > minutes / 4
        slope = float(np.polyfit(times[late], sizes[late], 1)[0]) * 60
        print(f"{name:<12}" + "".join(f"{size:>10.1f}" for size in at) + f"{slope:>10.2f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--backend", choices=["hashmap", "rocksdb"], default="hashmap")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rs", ignore_cleanup_errors=True) as scratch:
        client = submit(scratch, options.backend)
        samples = watch(options.minutes)
        newest = max(one.checkpoint_id for one in client.checkpoints())
        client.cancel()
        client.wait()
        report(samples, options.minutes, newest)


if __name__ == "__main__":
    main()
