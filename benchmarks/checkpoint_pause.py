"""What a checkpoint of a million entries does to the stream.

One slot counts a million keys, on the heap or in RocksDB, where each may carry many bytes.  The sink writes
down when each batch came; a gap between two batches that overlaps a checkpoint (trigger to completion) is
compared with the gaps of stretches of the same length without one.

    python benchmarks/checkpoint_pause.py [--millions 8] [--keys 1000000]
    python benchmarks/checkpoint_pause.py --backend rocksdb --value-bytes 1000 [--millions 4]
"""

import argparse
import itertools
import json
import tempfile
import time
from pathlib import Path

from raystream import KeyedProcessFunction, StreamEnvironment, ValueStateDescriptor
from raystream.connectors.datagen import DatagenSource


class Count(KeyedProcessFunction):
    """Counts the records of each key."""

    def open(self, ctx):
        self.seen = ctx.get_state(ValueStateDescriptor("seen", int, default=0))

    def process_element(self, value, ctx):
        seen = self.seen.value() + 1
        self.seen.update(seen)
        yield ctx.current_key, seen


class CountInLargeValues(KeyedProcessFunction):
    """Counts the records of each key in the first bytes of a large value."""

    def __init__(self, value_bytes):
        self.padding = bytes(value_bytes - 8)

    def open(self, ctx):
        self.seen = ctx.get_state(ValueStateDescriptor("seen", bytes, default=bytes(8)))

    def process_element(self, value, ctx):
        seen = int.from_bytes(self.seen.value()[:8]) + 1
        self.seen.update(seen.to_bytes(8) + self.padding)
        yield ctx.current_key, seen


class TimingSink:
    """Writes down when each batch came, in wall time, and how many records it had."""

    def __init__(self, path):
        self.path = path

    def open_writer(self, context):
        return TimingWriter(Path(self.path))

    def open_committer(self, context):
        return None


class TimingWriter:
    """The writer of one subtask."""

    def __init__(self, path):
        self.path = path
        self.batches = []

    def start(self):
        pass

    def write(self, batch):
        self.batches.append((time.time() * 1000, len(batch.values)))

    def prepare_commit(self, checkpoint_id):
        return []

    def sync(self):
        pass

    def keep(self, committables):
        pass

    def abort(self):
        pass

    def close(self):
        self.path.write_text(json.dumps(self.batches))


def run(records: int, keys: int, backend: str, value_bytes: int) -> tuple[list, list]:
    """Run the job; return the batches' times and the completed checkpoints."""
    with tempfile.TemporaryDirectory(prefix="rs") as scratch:
        env = StreamEnvironment(
            runner="ray",
            parallelism=1,
            state_backend_type=backend,
            execution_checkpointing_interval="2s",
            execution_checkpointing_dir=f"file://{scratch}/checkpoints",
        )
        (
            env.from_source(DatagenSource(lambda index: index, count=records), name="numbers", uid="numbers")
            .key_by(lambda number: f"key-{number % keys:07}")
            .process(CountInLargeValues(value_bytes) if value_bytes else Count(), name="count", uid="count")
            .sink_to(TimingSink(f"{scratch}/times.json"), name="times", uid="times")
        )
        client = env.submit("checkpoint pause benchmark")
        client.wait()
        return json.loads(Path(f"{scratch}/times.json").read_text()), list(client.checkpoints())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--millions", type=int, default=8)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--backend", choices=("hashmap", "rocksdb"), default="hashmap")
    parser.add_argument("--value-bytes", type=int, default=0, help="at least 8; 0 counts in an int")
    options = parser.parse_args()
    records = options.millions * 1_000_000
    batches, checkpoints = run(records, options.keys, options.backend, options.value_bytes)
    seen, loaded_at_ms = 0, batches[0][0]
    for at_ms, count in batches:
        seen += count
        if seen >= options.keys:
            loaded_at_ms = at_ms
            break
    spans = [
        (c.triggered_ms, c.triggered_ms + c.duration_ms)
        for c in checkpoints
        if c.status == "completed" and c.triggered_ms > loaded_at_ms
    ]
    gaps = [(a[0], b[0], b[1]) for a, b in itertools.pairwise(batches) if a[0] > loaded_at_ms]
    during = [g for g in gaps if any(g[1] > start and g[0] < end for start, end in spans)]
    without = [g for g in gaps if g not in set(during)]
    print(f"{len(spans)} checkpoints of {options.keys:,} entries")
    for name, some in (("during a checkpoint", during), ("without", without)):
        lengths = sorted(b - a for a, b, _ in some)
        time_ms = sum(lengths)
        rate = sum(count for _, _, count in some) / time_ms * 1000
        tail = lengths[int(len(lengths) * 0.999)]
        print(f"{name:22} longest gap {lengths[-1]:7.1f} ms   p99.9 {tail:6.1f} ms   {rate:12,.0f} records/s")
    for checkpoint in checkpoints:
        if checkpoint.status == "completed" and checkpoint.triggered_ms > loaded_at_ms:
            size = f"{checkpoint.uploaded_bytes:,} bytes written of {checkpoint.size_bytes:,}"
            print(f"checkpoint {checkpoint.checkpoint_id}: {checkpoint.duration_ms:.0f} ms, {size}")


if __name__ == "__main__":
    main()
