"""What a checkpoint of a million entries does to the stream.

The slots count a million keys, on the heap or in RocksDB, where each may carry many bytes that do not
compress.  Each sink writes down when each batch came; gaps between two batches that overlap a checkpoint
(trigger to completion) are compared with those that overlap none.

    python benchmarks/checkpoint_pause.py [--millions 8] [--keys 1000000]
    python benchmarks/checkpoint_pause.py --backend rocksdb --value-bytes 1000 [--parallelism 2]
"""

import argparse
import itertools
import json
import random
import tempfile
import time
from pathlib import Path

from raystream import KeyedProcessFunction, StreamEnvironment, ValueStateDescriptor
from raystream.connectors.datagen import DatagenSource

# Bytes that values are cut from: much more than what a compressor looks back on.
NOISE_BYTES = 16 << 20


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
        self.padding_bytes = value_bytes - 8

    def open(self, ctx):
        self.noise = random.Random(0).randbytes(NOISE_BYTES + self.padding_bytes)
        self.seen = ctx.get_state(ValueStateDescriptor("seen", bytes, default=bytes(8)))

    def process_element(self, value, ctx):
        seen = int.from_bytes(self.seen.value()[:8]) + 1
        start = value * 7919 % NOISE_BYTES
        self.seen.update(seen.to_bytes(8) + self.noise[start : start + self.padding_bytes])
        yield ctx.current_key, seen


class TimingSink:
    """Writes down when each batch came, in wall time, and how many records it had."""

    def __init__(self, directory):
        self.directory = directory

    def open_writer(self, context):
        return TimingWriter(Path(self.directory) / f"{context.subtask}.json")

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


def run(options: argparse.Namespace) -> tuple[list, list]:
    """Run the job; return the batches' times of each sink and the completed checkpoints."""
    keys, value_bytes = options.keys, options.value_bytes
    with tempfile.TemporaryDirectory(prefix="rs") as scratch:
        times = Path(scratch) / "times"
        times.mkdir()
        env = StreamEnvironment(
            runner="ray",
            parallelism=options.parallelism,
            state_backend_type=options.backend,
            execution_checkpointing_interval=options.interval,
            execution_checkpointing_dir=f"file://{scratch}/checkpoints",
        )
        (
            env.from_source(
                DatagenSource(lambda index: index, count=options.millions * 1_000_000),
                name="numbers",
                uid="numbers",
            )
            .key_by(lambda number: f"key-{number % keys:07}")
            .process(CountInLargeValues(value_bytes) if value_bytes else Count(), name="count", uid="count")
            .sink_to(TimingSink(str(times)), name="times", uid="times")
        )
        client = env.submit("checkpoint pause benchmark")
        client.wait()
        completed = [one for one in client.checkpoints() if one.status in ("completed", "deleted")]
        return [json.loads(path.read_text()) for path in sorted(times.iterdir())], completed


def loaded_at(batches: list, keys: int) -> float:
    """Return when every key of these batches had been there once."""
    seen = itertools.accumulate(count for _, count in batches)
    return next(at_ms for (at_ms, _), so_far in zip(batches, seen, strict=True) if so_far >= keys)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--millions", type=int, default=8)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--backend", choices=("hashmap", "rocksdb"), default="hashmap")
    parser.add_argument("--value-bytes", type=int, default=0, help="at least 8; 0 counts in an int")
    parser.add_argument("--parallelism", type=int, default=1)
    parser.add_argument("--interval", default="2s", help="between two checkpoints")
    options = parser.parse_args()
    sinks, checkpoints = run(options)
    loaded_ms = max(loaded_at(batches, options.keys // options.parallelism) for batches in sinks)
    checkpoints = [one for one in checkpoints if one.triggered_ms > loaded_ms]
    spans = [(one.triggered_ms, one.triggered_ms + one.duration_ms) for one in checkpoints]
    during, without = [], []
    for batches in sinks:
        for (from_ms, _), (to_ms, count) in itertools.pairwise(batches):
            if from_ms > loaded_ms:
                overlaps = any(to_ms > start and from_ms < end for start, end in spans)
                (during if overlaps else without).append((to_ms - from_ms, count))
    print(f"{len(spans)} checkpoints of {options.keys:,} entries, parallelism {options.parallelism}")
    for name, gaps in (("during a checkpoint", during), ("without", without)):
        lengths = sorted(length for length, _ in gaps)
        rate = options.parallelism * sum(count for _, count in gaps) / sum(lengths) * 1000
        tail = lengths[int(len(lengths) * 0.999)]
        print(f"{name:22} longest gap {lengths[-1]:7.1f} ms   p99.9 {tail:6.1f} ms   {rate:12,.0f} records/s")
    for one in checkpoints:
        size = f"{one.uploaded_bytes:,} bytes written of {one.size_bytes:,}"
        print(f"checkpoint {one.checkpoint_id}: {one.duration_ms:.0f} ms, {size}")


if __name__ == "__main__":
    main()
