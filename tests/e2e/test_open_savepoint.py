"""A canonical savepoint is open: DuckDB and pyarrow read it where raystream is not installed."""

import json
import site
import subprocess
import sys

import pytest

from raystream import (
    CheckpointedFunction,
    KeyedProcessFunction,
    ListStateDescriptor,
    MapStateDescriptor,
    StateTtl,
    StreamEnvironment,
    TimeDomain,
    ValueStateDescriptor,
    WatermarkStrategy,
)
from raystream.connectors.basic import DiscardSink
from raystream.testing import Pause, TestSource
from tests.running_job import until

COUNT = 300
KEYS = 10
WINDOW_MS = 100
FOR_EVER_MS = 1e9

READ = """
import json, sys
sys.path += json.loads(sys.argv[2])
import duckdb, pyarrow.parquet as pq
from pathlib import Path

def rows(query):
    return duckdb.sql(query.replace("$", f"{operator}/")).fetchall()

operator = Path(sys.argv[1]) / "by%20key%2Fhour"
parts = sorted(operator.glob("*/*.parquet"))
footer = json.loads(pq.read_metadata(operator / "hits" / "part-0.parquet").metadata[b"raystream"])
tables = {
    name: [row for part in parts if part.parent.name == name for row in pq.read_table(part).to_pylist()]
    for name in ("hits", "digits")
}
try:
    import raystream
    installed = True
except ImportError:
    installed = False
print(json.dumps({
    "installed": installed,
    "footer": footer,
    "states": sorted({part.parent.name for part in parts}),
    "hits by pyarrow": sorted((row["key"], row["value"]) for row in tables["hits"]),
    "digits by pyarrow": sorted((row["key"], row["map_key"], row["value"]) for row in tables["digits"]),
    "hits": rows("SELECT key, value FROM '$hits/*.parquet' ORDER BY ALL"),
    "digits": rows("SELECT key, map_key, value FROM '$digits/*.parquet' ORDER BY ALL"),
    "seen": rows("SELECT key, position, value, written_ms FROM '$seen/*.parquet' ORDER BY ALL"),
    "timers": rows(
        "SELECT key, time_ms, domain, namespace FROM '$_timers_event/*.parquet' ORDER BY ALL"
    ),
    "buffer": rows("SELECT sum(value), count(*) FROM '$buffer/*.parquet'"),
    "sorted": rows(
        "SELECT bool_and(key_group >= before) FROM (SELECT key_group, lag(key_group, 1, -1)"
        " OVER (PARTITION BY filename ORDER BY file_row_number) AS before"
        " FROM read_parquet('$hits/*.parquet', filename=true, file_row_number=true))"
    ),
}))
"""


class Count(KeyedProcessFunction, CheckpointedFunction):
    """Keeps each number in keyed state of several kinds, in a timer, and in operator state."""

    def open(self, ctx):
        by_event_time = StateTtl("1d", time=TimeDomain.EVENT_TIME)
        self.hits = ctx.get_state(ValueStateDescriptor("hits", int, default=0))
        self.digits = ctx.get_map_state(MapStateDescriptor("digits", str, int))
        self.seen = ctx.get_list_state(ListStateDescriptor("seen", int, ttl=by_event_time))

    def initialize_state(self, ctx):
        self.buffer = ctx.get_list_state(ListStateDescriptor("buffer", int))

    def snapshot_state(self, ctx):
        pass

    def process_element(self, number, ctx):
        self.hits.update(self.hits.value() + 1)
        digit = str(number % 7)
        self.digits[digit] = self.digits.get(digit, 0) + 1
        self.seen.add(number)
        self.buffer.add(number)
        ctx.timers.register_event_time(1_000_000 + number // WINDOW_MS)
        yield number

    def on_timer(self, timestamp, ctx):
        return ()


@pytest.fixture(params=["hashmap", "rocksdb"])
def savepoint(request, tmp_path, local_path):
    """Return the directory of a savepoint of a job that has seen all numbers but goes on."""
    env = StreamEnvironment(
        runner="local",
        parallelism=2,
        execution_checkpointing_savepoint_dir=str(tmp_path / "savepoints"),
        state_backend_type=request.param,
        state_backend_rocksdb_localdir=str(local_path),
    )
    numbers = TestSource([*range(COUNT), Pause(FOR_EVER_MS)])
    strategy = WatermarkStrategy.for_monotonous_timestamps().with_timestamp_assigner(lambda number: number)
    (
        env.from_source(numbers, watermarks=strategy, uid="numbers")
        .key_by(lambda number: f"key {number % KEYS}")
        .process(Count(), uid="by key/hour")
        .sink_to(DiscardSink(), uid="nowhere")
    )
    client = env.submit("count")
    until(client, lambda: client.progress().records_in >= COUNT)
    path = client.savepoint().removeprefix("file://")
    client.cancel()
    return path


def read(savepoint):
    """Return what a process finds that has no raystream on its path: -S keeps editable installs away."""
    paths = json.dumps(site.getsitepackages())
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", READ, savepoint, paths],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_duckdb_and_pyarrow_read_every_state_without_raystream(savepoint):
    found = read(savepoint)

    numbers = range(COUNT)
    of_key = {f"key {key}": [n for n in numbers if n % KEYS == key] for key in range(KEYS)}
    hits = [[key, len(seen)] for key, seen in of_key.items()]
    digits = sorted(
        [key, str(digit), count]
        for key, seen in of_key.items()
        for digit in range(7)
        if (count := sum(n % 7 == digit for n in seen))
    )
    assert not found["installed"]
    assert found["states"] == ["_timers_event", "buffer", "digits", "hits", "seen"]
    assert found["hits"] == found["hits by pyarrow"] == hits
    assert found["digits"] == found["digits by pyarrow"] == digits
    assert found["seen"] == [
        [key, position, number, number]
        for key, seen in of_key.items()
        for position, number in enumerate(seen)
    ]
    assert found["timers"] == [
        [key, 1_000_000 + window, "event", None] for key in of_key for window in range(COUNT // WINDOW_MS)
    ]
    assert found["buffer"] == [[sum(numbers), COUNT]]
    assert found["sorted"] == [[True]]
    footer = found["footer"]
    assert (footer["uid"], footer["state"]["name"], footer["subtask"]) == ("by key/hour", "hits", 0)
    assert footer["rows"] == sum(row_group["rows"] for row_group in footer["row_groups"])
