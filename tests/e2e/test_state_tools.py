"""A job's state, looked into from the command line, changed from Python, and taken over by the job again."""

import dataclasses
import json

import duckdb
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from raystream import ValueStateDescriptor, savepoint
from raystream.savepoint import KeyedState

JOB = """\
import sys
from dataclasses import dataclass

from raystream import CheckpointedFunction, KeyedProcessFunction, ListStateDescriptor, StreamEnvironment
from raystream import ValueStateDescriptor
from raystream.connectors.files import FileSink, FileSource


@dataclass
class Last:
    path: str
    times: int = 0


class Count(KeyedProcessFunction):
    def open(self, ctx):
        self.hits = ctx.get_state(ValueStateDescriptor("hits", {type}, default={type}()))
        self.last = ctx.get_state(ValueStateDescriptor("last", Last))

    def process_element(self, line, ctx):
        self.hits.update(self.hits.value() + 1)
        self.last.update(Last(line, (self.last.value() or Last("")).times + 1))
        yield f"{{line}} {{self.hits.value()}} {{self.last.value().times}}"


env = StreamEnvironment()
(
    env.from_source(FileSource.lines(sys.argv[1]), name="lines", uid=sys.argv[1])
    .key_by(str.strip)
    .process(Count(), name="count hits", uid="count-hits")
    .sink_to(FileSink.lines(sys.argv[2]), name="out", uid=sys.argv[2])
)
{end}
"""
STOP = "client = env.submit('hits')\nprint(client.stop(sys.argv[3]))"


@pytest.fixture
def run(raystream, script, tmp_path):
    """Run the job on lines, from a savepoint if there is one; return what it emitted, and its savepoint."""

    def on(name, lines, *options, **changed):
        (tmp_path / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
        job = script(JOB.format(**{"type": "int", "end": "env.execute('hits')", **changed}), f"{name}.py")
        settings = ("--runner", "local", "-p", "2", "-D", "execution.checkpointing.interval=100ms")
        settings += ("-D", f"execution.checkpointing.dir={tmp_path}/checkpoints", "-n")
        done = raystream("run", *settings, *options, job, f"{name}.txt", f"{name}-out", "savepoints")
        assert done.code == 0, done.err
        parts = (tmp_path / f"{name}-out").glob("part-*")
        emitted = [line for part in parts for line in part.read_text().splitlines()]
        return sorted(emitted), done.out.strip()

    return on


def written_by_hand(path):
    """Return the path of a savepoint in which somebody wrote what two keys have seen."""
    hits = {"key": ["/a", "/b"], "value": [10, 20]}
    last = {"key": ["/a"], "value": [{"path": "/a", "times": 5}]}
    return savepoint.write(
        str(path),
        [
            KeyedState("count-hits", ValueStateDescriptor("hits", int), hits),
            KeyedState("count-hits", ValueStateDescriptor("last", declared_last()), last),
        ],
    ).removeprefix("file://")


def declared_last():
    return dataclasses.make_dataclass("Last", [("path", str), ("times", int, 0)])


def test_state_that_was_written_from_nothing_is_what_a_job_starts_from_and_what_any_tool_reads(
    raystream, run, tmp_path
):
    path = written_by_hand(tmp_path / "by-hand")

    emitted, _ = run("first", ["/a", "/b", "/b", "/c"], "-s", path)

    assert emitted == ["/a 11 6", "/b 21 1", "/b 22 2", "/c 1 1"]
    files = f"{path}/count-hits/hits/part-0.parquet"
    assert duckdb.sql(f"select key, value from '{files}' order by key").fetchall() == [("/a", 10), ("/b", 20)]
    assert pq.read_table(f"{path}/count-hits/last").column("value").to_pylist() == [
        {"path": "/a", "times": 5}
    ]
    assert pyarrow.dataset.dataset(f"{path}/count-hits/hits").to_table().num_rows == 2


def test_state_of_a_savepoint_is_changed_and_the_job_goes_on_with_it(raystream, run, script, tmp_path):
    base = written_by_hand(tmp_path / "by-hand")
    _, taken = run("first", ["/a"] * 2 + ["/c"] * 3, "-s", base, end=STOP)
    taken = taken.removeprefix("file://")

    listed = json.loads(raystream("state", "ls", taken, "--json").out)
    (operator,) = [operator for operator in listed["operators"] if operator["uid"] == "count-hits"]
    got = {key: raystream("state", "get", taken, "count-hits", "hits", key).out for key in ("/a", "/b")}
    exported = raystream("state", "export", taken, "count-hits", "hits", "hits.parquet")
    differing = json.loads(raystream("state", "diff", base, taken, "--json").out)
    fits = raystream("state", "check", "-n", tmp_path / "first.py", taken, "first.txt", "x", "y")
    other = script(JOB.format(type="float", end=STOP), "other.py")
    refused = raystream("state", "check", "-n", other, taken, "first.txt", "x", "y")

    assert {state["name"]: state["type"] for state in operator["states"]} == {
        "hits": "int", "last": "Last{path: str, times?: int}",
    }  # fmt: skip
    assert got["/b"] == "20\n"
    assert exported.out == "hits.parquet\n"
    hits = pq.read_table(tmp_path / "hits.parquet")
    assert sorted(hits.column("key").to_pylist())[:2] == ["/a", "/b"]
    assert next(one for one in differing if one["state"] == "hits")["removed"] == 0
    assert (fits.code, refused.code) == (0, 2)
    assert "schema was 'int', is 'float'" in refused.out

    doubled = pa.array([value * 1000 for value in hits.column("value").to_pylist()])
    hits = hits.set_column(hits.column_names.index("value"), "value", doubled)
    with savepoint.open(taken) as opened:
        changed = savepoint.write(
            str(tmp_path / "changed"), [KeyedState("count-hits", "hits", hits)], base=opened
        )
    emitted, _ = run("second", ["/b", "/d"], "-s", changed)
    assert emitted == ["/b 20001 1", "/d 1 1"]
