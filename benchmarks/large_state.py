"""A gibibyte of keyed state on both backends: records per second and memory of a slot.

    python benchmarks/large_state.py [--keys 1048576] [--record-bytes 1024] [--rounds 1]

The job is that of `jobs/keyed_state_backends.py`: numbers padded to a kibibyte are their own keys, and the
state of a key is the record, with thirty days to live.  Every key comes once, and then a second time.
The sink writes down when each batch came and how much anonymous memory its slot had (Pss_Anon of
`smaps_rollup`), so that the rate is net of start-up.  No checkpoints are taken.
"""

import argparse
import itertools
import json
import statistics
import tempfile
import time
from datetime import timedelta
from pathlib import Path

from raystream import KeyedProcessFunction, StateTtl, StreamEnvironment, ValueStateDescriptor
from raystream.connectors.datagen import DatagenSource

LOOK_EVERY_S = 0.5
MIB = 1 << 20


class Remember(KeyedProcessFunction):
    """Keeps the newest record of each key."""

    def open(self, ctx):
        self.line = ctx.get_state(ValueStateDescriptor("line", str, ttl=StateTtl(timedelta(days=30))))

    def process_element(self, value, ctx):
        line, _ = value
        new = self.line.value() is None
        self.line.update(line)
        yield new


class WatchingSink:
    """Writes down when each batch came, and the memory of its slot."""

    def __init__(self, directory):
        self.directory = directory

    def open_writer(self, context):
        return WatchingWriter(Path(self.directory) / f"slot-{context.subtask}.json")

    def open_committer(self, context):
        return None


class WatchingWriter:
    """The writer of one subtask."""

    def __init__(self, path):
        self.path = path
        self.batches = []
        self.memory = []
        self.looked_s = 0.0

    def start(self):
        pass

    def write(self, batch):
        now_s = time.time()
        self.batches.append((now_s, len(batch.values), sum(batch.values)))
        if now_s - self.looked_s > LOOK_EVERY_S:
            self.looked_s = now_s
            self.memory.append(anonymous_bytes())

    def prepare_commit(self, checkpoint_id):
        return []

    def sync(self):
        pass

    def keep(self, committables):
        pass

    def abort(self):
        pass

    def close(self):
        self.path.write_text(json.dumps({"batches": self.batches, "memory": self.memory}))


def anonymous_bytes() -> int:
    """Return the anonymous memory of this process."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss_Anon:"):
            return int(line.split()[1]) << 10
    raise AssertionError("no Pss_Anon")


def run(backend: str, parallelism: int, keys: int, width: int) -> tuple[float, float, float]:
    """Run the job; return records/s with new and with known keys, and the most memory of a slot in MiB."""
    with tempfile.TemporaryDirectory(prefix="rs") as scratch:
        env = StreamEnvironment(
            runner="ray",
            parallelism=parallelism,
            state_backend_type=backend,
            state_backend_rocksdb_localdir=f"{scratch}/state",
        )
        (
            env.from_source(
                DatagenSource(lambda index: str(index % keys).zfill(width), count=2 * keys),
                name="numbers",
                uid="source",
            )
            .map(lambda line: (line, 1), name="pair", uid="pair")
            .key_by(lambda pair: pair[0])
            .process(Remember(), name="remember", uid="remember")
            .sink_to(WatchingSink(scratch), name="watch", uid="sink")
        )
        env.execute("large state")
        slots = [json.loads(path.read_text()) for path in sorted(Path(scratch).glob("slot-*.json"))]
    batches = sorted(tuple(batch) for slot in slots for batch in slot["batches"])
    halves = [[], []]
    seen = 0
    for at_s, count, new in batches:
        seen += new
        halves[new == 0].append((at_s, count))
    assert seen == keys, seen
    rates = [sum(count for _, count in half) / (half[-1][0] - half[0][0]) for half in halves]
    return *rates, max(itertools.chain(*(slot["memory"] for slot in slots))) / MIB


def main() -> None:
    """Measure in turn and print medians."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--keys", type=int, default=1 << 20)
    parser.add_argument("--record-bytes", type=int, default=1 << 10)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    cases = [(backend, parallelism) for backend in ("hashmap", "rocksdb") for parallelism in (1, 2)]
    found = {case: [] for case in cases}
    for _ in range(options.rounds):
        for case in cases:
            found[case].append(run(*case, options.keys, options.record_bytes))
    print(f"{options.keys:,} keys of {options.record_bytes} bytes")
    for (backend, parallelism), results in found.items():
        new, known, memory = (statistics.median(column) for column in zip(*results, strict=True))
        print(
            f"{backend:8} p={parallelism}   new keys {new:10,.0f} records/s"
            f"   known keys {known:10,.0f} records/s   Pss_Anon {memory:7,.0f} MiB"
        )


if __name__ == "__main__":
    main()
