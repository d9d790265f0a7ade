"""Throughput of the main job on Ray beside a plain Python loop, interleaved.

JSON lines of 115 bytes, 10,000 paths (Zipf 1.1): parsed to a `msgspec.Struct`, `key_by` path, a
`KeyedProcessFunction` with a `ValueState`, every update emitted to a discarding sink, a
checkpoint every second to a file.  The rate counts the records between the first and the
last batch that a sink saw, by the slots' own monotonic clocks.  The plain loop reads, parses,
counts in a dict and emits to a list, in one process at the nice level of Ray's workers.

    python benchmarks/spine.py [--millions 20] [--rounds 3] [--profile]
"""

import argparse
import bisect
import itertools
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import msgspec

from raystream import KeyedProcessFunction, StreamEnvironment, ValueStateDescriptor
from raystream.connectors.files import FileSource

FILE_RECORDS = 2_000_000
PATHS = 10_000
NICE = int(os.environ.get("RAY_worker_niceness", "15"))  # noqa: SIM112 - the name is Ray's


class Hit(msgspec.Struct):
    """A line of the log."""

    time_ms: int
    path: str
    status: int
    size: int
    agent: str


class CountHits(KeyedProcessFunction):
    """Counts the hits of each path and emits every update."""

    def open(self, ctx):
        self.hits = ctx.get_state(ValueStateDescriptor("hits", int, default=0))

    def process_element(self, value, ctx):
        hits = self.hits.value() + 1
        self.hits.update(hits)
        yield ctx.current_key, hits


class MarkingSink:
    """Discards records and writes down when the first and the last batch came."""

    def __init__(self, directory):
        self.directory = directory

    def open_writer(self, context):
        return MarkingWriter(Path(self.directory) / f"{context.attempt}-{context.subtask}.json")

    def open_committer(self, context):
        return None


class MarkingWriter:
    """The writer of one subtask."""

    def __init__(self, path):
        self.path = path
        self.first_s = self.last_s = 0.0
        self.records = 0

    def start(self):
        pass

    def write(self, batch):
        self.last_s = time.monotonic()
        if not self.first_s:
            self.first_s = self.last_s
        self.records += len(batch.values)

    def prepare_commit(self, checkpoint_id):
        return []

    def sync(self):
        pass

    def keep(self, committables):
        pass

    def abort(self):
        pass

    def close(self):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        marks = {"first": self.first_s, "last": self.last_s, "records": self.records, "peak_kib": peak}
        self.path.write_text(json.dumps(marks))


def make_log(path: Path) -> None:
    """Write two million lines, by seed."""
    rng = random.Random(1)
    weights = list(itertools.accumulate(1 / rank**1.1 for rank in range(1, PATHS + 1)))
    encode = msgspec.json.Encoder().encode
    with path.open("wb") as file:
        for number in range(FILE_RECORDS):
            rank = bisect.bisect(weights, rng.random() * weights[-1])
            hit = Hit(
                1_700_000_000_000 + number,
                f"/p/{rank:05}/index.html",
                200,
                rng.randrange(10_000, 99_999),
                "Mozilla/5.0 (X11; Linux x)",
            )
            file.write(encode(hit) + b"\n")


def plain_loop(paths: list[str]) -> None:
    """Read, parse, count, emit; print records per second."""
    os.nice(max(NICE - os.nice(0), 0))
    decode = msgspec.json.Decoder(Hit).decode
    counts: dict[str, int] = {}
    records = 0
    started = time.monotonic()
    for path in paths:
        out = []
        with Path(path).open("rb") as file:
            for line in file:
                hit = decode(line)
                hits = counts.get(hit.path, 0) + 1
                counts[hit.path] = hits
                out.append((hit.path, hits))
        records += len(out)
    print(records / (time.monotonic() - started))


def run_job(log: str, parallelism: int, profile: bool) -> dict:
    """Run the job once on Ray and return its figures."""
    decode = msgspec.json.Decoder(Hit).decode
    with tempfile.TemporaryDirectory(prefix="rs") as scratch:
        marks_dir = Path(scratch) / "marks"
        marks_dir.mkdir()
        env = StreamEnvironment(
            runner="ray",
            parallelism=parallelism,
            execution_checkpointing_interval="1s",
            execution_checkpointing_dir=f"file://{scratch}/checkpoints",
        )
        (
            env.from_source(FileSource.lines(log, encoding=None), name="log", uid="log")
            .map(decode, name="parse", uid="parse")
            .key_by(lambda hit: hit.path)
            .process(CountHits(), name="count hits", uid="count-hits")
            .sink_to(MarkingSink(str(marks_dir)), name="discard", uid="discard")
        )
        client = env.submit("spine benchmark")
        top = sample_stacks() if profile else []
        result = client.wait()
        marks = [json.loads(p.read_text()) for p in sorted(marks_dir.iterdir())]
        span = max(m["last"] for m in marks) - min(m["first"] for m in marks)
        completed = [c for c in client.checkpoints() if c.status == "completed"]
    assert sum(m["records"] for m in marks) == result.records_in == result.records_out
    return {
        "rate": result.records_in / span,
        "checkpoints": len(completed),
        "peak_mib": max(m["peak_kib"] for m in marks) / 1024,
        "top": top,
    }


def sample_stacks(seconds: int = 6) -> list[tuple[str, float]]:
    """Return the ten functions that the busiest slot is seen in most, with their share."""
    time_to_warm_up_s = 4
    deadline = time.monotonic() + time_to_warm_up_s
    while time.monotonic() < deadline:
        subprocess.run(["/bin/true"], check=True)
    listing = subprocess.run(["ps", "-eo", "pid,pcpu,args"], capture_output=True, text=True, check=True)
    slots = [line.split(None, 2) for line in listing.stdout.splitlines() if "ray::SlotActor" in line]
    if not slots:
        return []
    pid = max(slots, key=lambda slot: float(slot[1]))[0]
    with tempfile.NamedTemporaryFile(suffix=".txt") as out:
        options = ["-d", str(seconds), "-r", "200", "-f", "raw", "-o", out.name, "-p", pid]
        command = [str(Path(sys.executable).with_name("py-spy")), "record", *options]
        subprocess.run(command, capture_output=True, check=True)
        seen: Counter[str] = Counter()
        for line in Path(out.name).read_text().splitlines():
            stack, count = line.rsplit(" ", 1)
            if "slot.py" in stack:
                seen[stack.split(";")[-1]] += int(count)
    total = sum(seen.values()) or 1
    return [(name, count / total) for name, count in seen.most_common(10)]


def main() -> None:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--millions", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--plain", nargs="*")
    options = parser.parse_args()
    if options.plain:
        plain_loop(options.plain)
        return
    with tempfile.TemporaryDirectory(prefix="rs") as scratch:
        first = Path(scratch) / "log-00.jsonl"
        make_log(first)
        for number in range(1, options.millions * 1_000_000 // FILE_RECORDS):
            os.link(first, Path(scratch) / f"log-{number:02}.jsonl")
        logs = sorted(str(p) for p in Path(scratch).glob("log-*.jsonl"))
        rows = []
        for number in range(options.rounds):
            out = subprocess.run(
                [sys.executable, __file__, "--plain", *logs], capture_output=True, text=True, check=True
            )
            row = {"plain": float(out.stdout)}
            for parallelism in (1, 2):
                profile = options.profile and number == options.rounds - 1
                row[parallelism] = run_job(f"{scratch}/log-*.jsonl", parallelism, profile)
            rows.append(row)
            report(rows)


def report(rows: list[dict]) -> None:
    """Print the medians so far."""
    plain = statistics.median(row["plain"] for row in rows)
    print(f"\nround {len(rows)}: medians of {len(rows)}")
    print(f"{'':14}{'records/s':>12}{'ratio':>8}{'peak MiB':>10}{'checkpoints':>13}")
    print(f"{'plain loop':14}{plain:12,.0f}{1:8.2f}")
    for parallelism in (1, 2):
        runs = [row[parallelism] for row in rows]
        ratio = statistics.median(row[parallelism]["rate"] / row["plain"] for row in rows)
        rate = statistics.median(run["rate"] for run in runs)
        peak = max(run["peak_mib"] for run in runs)
        checkpoints = min(run["checkpoints"] for run in runs)
        print(f"{f'parallelism {parallelism}':14}{rate:12,.0f}{ratio:8.2f}{peak:10.0f}{checkpoints:13}")
        for name, share in runs[-1]["top"]:
            print(f"    {share:6.1%}  {name}")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
