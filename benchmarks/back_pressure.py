"""What a sink that is blocked, or slow, costs.

Blocked: one of two sinks stops in the middle of a batch and is let go after some time.  Its own slot
stands still with it; the other one goes on until it has used up its credit.  Memory and CPU of each
slot are shown, while the source could go at full speed.

Slow: both sinks go at 1 % of the source's speed, so that all buffers are full.  How long checkpoints
take is shown for those that are aligned, that are not, and that are not after a while.

    python benchmarks/back_pressure.py blocked [--seconds 20]
    python benchmarks/back_pressure.py slow [--seconds 30] [--runner local]
"""

import argparse
import os
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from raystream import StreamEnvironment
from raystream.cluster.client import RayRunner
from raystream.connectors.datagen import DatagenSource

RECORDS = 2_000_000
KEYS = 10_000
BLOCKED_AFTER = 100_000


@dataclass(frozen=True)
class BlockingSink:
    """Drops its records; subtask 0 stops once, until somebody has written to the gate and closed it."""

    gate: Path

    def open_writer(self, context):
        """Return the writer of one subtask."""
        return BlockingWriter(self.gate if context.subtask == 0 else None)

    def open_committer(self, context):
        """Return None: nothing is committed."""


class BlockingWriter:
    """The writer of one subtask."""

    def __init__(self, gate):
        self.gate = gate
        self.left = BLOCKED_AFTER

    def start(self):
        """Do nothing."""

    def write(self, batch):
        """Drop the records."""
        before, self.left = self.left, self.left - len(batch.values)
        if self.gate and before > 0 >= self.left:
            self.gate.read_bytes()

    def prepare_commit(self, checkpoint_id):
        """Return nothing to commit."""
        return []

    def sync(self):
        """Do nothing."""

    def abort(self):
        """Do nothing."""

    def close(self):
        """Do nothing."""


def usage(pid: int) -> tuple[float, float]:
    """Return CPU seconds and resident megabytes of a process."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    cpu_s = (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
    return cpu_s, pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


@dataclass(frozen=True)
class SlowSink:
    """Drops its records, so many in a second."""

    records_per_s: float

    def open_writer(self, context):
        """Return the writer of one subtask."""
        return SlowWriter(self.records_per_s)

    def open_committer(self, context):
        """Return None: nothing is committed."""


class SlowWriter(BlockingWriter):
    """The writer of one subtask."""

    def __init__(self, records_per_s):
        self.records_per_s = records_per_s

    def write(self, batch):
        """Drop the records, after a while."""
        time.sleep(len(batch.values) / self.records_per_s)


def blocked(seconds: float) -> None:
    """Measure and print what a blocked sink costs."""
    with tempfile.TemporaryDirectory(prefix="rs") as scratch:
        gate = Path(scratch) / "gate"
        os.mkfifo(gate)
        env = StreamEnvironment(
            runner="ray",
            parallelism=2,
            execution_checkpointing_interval="1s",
            execution_checkpointing_dir=f"file://{scratch}/checkpoints",
        )
        source = DatagenSource(lambda n: (f"/items/{n % KEYS}?page=1", 1), count=RECORDS)
        (
            env.from_source(source, name="numbers", uid="numbers")
            .key_by(lambda pair: pair[0])
            .sum(1, name="count", uid="count")
            .sink_to(BlockingSink(gate), name="blocked", uid="blocked")
        )
        client = env.submit("back-pressure benchmark")
        handle = RayRunner().attach(client.job_id)
        with gate.open("wb"):  # Waits for the sink to stop.
            pids = [worker.pid for worker in handle.workers()]
            before = [usage(pid) for pid in pids]
            with suppress(TimeoutError):
                for _ in handle.watch(seconds):
                    pass  # Until the time is over.
            after = [usage(pid) for pid in pids]
        result = client.wait()

    print(f"sink of slot 0 blocked for {seconds:.0f} s")
    print(f"{'slot':>4}{'memory before':>16}{'growth':>12}{'CPU of a core':>16}")
    for slot, ((cpu_0, mb_0), (cpu_1, mb_1)) in enumerate(zip(before, after, strict=True)):
        share = 100 * (cpu_1 - cpu_0) / seconds
        print(f"{slot:>4}{mb_0:>13.0f} MB{mb_1 - mb_0:>9.1f} MB{share:>14.2f} %")
    print(f"afterwards: {result.records_in:,} of {RECORDS:,} records in, {result.records_out:,} out")


MODES = {
    "aligned": {},
    "unaligned": {"execution_checkpointing_unaligned_enabled": True},
    "unaligned after 2 s": {
        "execution_checkpointing_unaligned_enabled": True,
        "execution_checkpointing_aligned_checkpoint_timeout": "2s",
    },
}


def counting_job(sink, runner, **options):
    """Return the environment of a job that counts, into a sink."""
    env = StreamEnvironment(runner=runner, parallelism=2, slot_cpus=0, **options)
    source = DatagenSource(lambda n: (f"/items/{n % KEYS}?page=1", 1), count=RECORDS)
    (
        env.from_source(source, name="numbers", uid="numbers")
        .key_by(lambda pair: pair[0])
        .sum(1, name="count", uid="count")
        .sink_to(sink, name="sink", uid="sink")
    )
    return env


def slow(seconds: float, runner: str, records_per_s: float | None) -> None:
    """Measure and print how long checkpoints take while the buffers are full."""
    if records_per_s is None:
        started = time.monotonic()
        counting_job(SlowSink(float("inf")), runner).execute("speed of the source")
        records_per_s = RECORDS / (time.monotonic() - started)
    share = records_per_s / 100 / 2
    print(f"sinks of {share:,.0f} records/s each, behind a source of {records_per_s:,.0f} records/s")
    print(f"{'':22}{'completed':>10}{'first':>10}{'median':>10}{'longest':>10}{'in flight':>12}")
    for name, options in MODES.items():
        with tempfile.TemporaryDirectory(prefix="rs") as scratch:
            env = counting_job(
                SlowSink(share),
                runner,
                execution_checkpointing_interval="1s",
                execution_checkpointing_dir=f"file://{scratch}/checkpoints",
                **options,
            )
            client = env.submit(f"{name} checkpoints behind a slow sink")
            while not client.checkpoints():  # Until it runs.
                with suppress(TimeoutError):
                    client.wait("200ms")
            with suppress(TimeoutError):
                client.wait(f"{seconds:.0f}s")
            records = client.checkpoints()
            client.cancel()
            client.wait("60s")
        taken = sorted(one.duration_ms / 1000 for one in records if one.status == "completed")
        under_way = [one for one in records if one.status == "pending"]
        flight = max((sum(part.in_flight_bytes for part in one.subtasks) for one in records), default=0)
        shown = [f"{value:.2f} s" for value in (taken[0], taken[len(taken) // 2], taken[-1])] if taken else []
        shown = shown or [f"> {seconds:.0f} s" if under_way else "none"] * 3
        columns = "".join(f"{text:>10}" for text in shown)
        print(f"{name:22}{len(taken):>10}{columns}{flight / 1e6:>9.2f} MB")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("sink", choices=("blocked", "slow"))
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--runner", choices=("ray", "local"), default="ray")
    parser.add_argument("--records-per-s", type=float, help="Speed of the source, where it is known.")
    given = parser.parse_args()
    if given.sink == "blocked":
        blocked(given.seconds)
    else:
        slow(given.seconds, given.runner, given.records_per_s)


if __name__ == "__main__":
    main()
