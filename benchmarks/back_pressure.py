"""What a blocked sink costs: memory and CPU of each slot while the source could go at full speed.

One of two sinks stops in the middle of a batch and is let go after some time.  Its own slot stands
still with it; the other one goes on until it has used up its credit.

    python benchmarks/back_pressure.py [--seconds 20]
"""

import argparse
import os
import tempfile
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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=20.0)
    seconds = parser.parse_args().seconds
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


if __name__ == "__main__":
    main()
