"""`raystream state`: what it prints, and how it ends."""

import json

import pyarrow.parquet as pq
import pytest

from raystream.cli.listing import print_table
from tests.unit.savepoint.jobs import BOMB, KEYS, UID, copied, snapshot

KINDS = ["heap", "rocksdb", "native", "canonical"]

JOB = """\
import sys
from dataclasses import dataclass
from pathlib import Path
from raystream import *
from raystream.connectors.basic import DiscardSink
from raystream.testing import TestSource

@dataclass
class Visit:
    path: str
    seconds: float = 0.0

class Sums:
    create_accumulator = add = get_result = merge = lambda *_: [0]

class EveryState(KeyedProcessFunction, CheckpointedFunction):
    def open(self, ctx):
        print("opened")
        {opening}
        ctx.get_state(ValueStateDescriptor("hits", {hits}))
        ctx.get_list_state(ListStateDescriptor("paths", Visit))
        ctx.get_map_state(MapStateDescriptor("{days}", str, float))
        ctx.get_reducing_state(ReducingStateDescriptor("longest", max, int))
        ctx.get_aggregating_state(AggregatingStateDescriptor("total", Sums(), list[int]))
        ctx.get_state(ValueStateDescriptor("bomb"))
        ctx.get_state(ValueStateDescriptor("lived", str, ttl=StateTtl("1d")))
        ctx.get_state(ValueStateDescriptor("never", int))

    def initialize_state(self, ctx):
        ctx.get_list_state(ListStateDescriptor("positions", int))
        ctx.get_union_list_state(ListStateDescriptor("all", str))
        ctx.get_broadcast_state(MapStateDescriptor("rules", str, int))
        ctx.get_raw_state("raw")

    def snapshot_state(self, ctx): ...
    def process_element(self, value, ctx): ...
    def on_timer(self, timestamp, ctx): ...

class Source(TestSource):
    def open_reader(self, *_):
        raise AssertionError("a source was opened")

class Sink(DiscardSink):
    def open_writer(self, *_):
        raise AssertionError("a sink was opened")

Path("ran").touch()
env = StreamEnvironment(parallelism={parallelism})
keyed = env.from_source(Source([1]), uid="{source}").key_by(abs)
keyed.process(EveryState(), name="count visits", uid="{uid}").sink_to(Sink(), uid="sink")
env.execute("every state")
"""
DECLARED = {
    "hits": "int",
    "days": "by day/hour",
    "uid": UID,
    "parallelism": 2,
    "opening": "pass",
    "source": "source",
}


@pytest.fixture(autouse=True)
def _nothing_is_unpickled(tmp_path, monkeypatch):
    for kind in KINDS:
        snapshot(kind)
    BOMB.unlink(missing_ok=True)
    monkeypatch.chdir(tmp_path)
    yield
    assert not BOMB.exists()


@pytest.fixture
def job(script):
    return lambda **changed: script(JOB.format_map({**DECLARED, **changed}))


# ---- ls -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_ls_lists_states_with_entries_and_key_groups_and_the_largest_keys(raystream, kind):
    done = raystream("state", "ls", snapshot(kind))

    assert done.code == 0
    lines = [line.split() for line in done.out.splitlines()]
    (hits,) = [line for line in lines if line[:4] == [UID, "count", "visits", "hits"]]
    assert hits[4:7] == ["value", "int", str(KEYS)]
    assert hits[-1] == "0-15"
    assert sum(line[:2] == [UID, "paths"] for line in lines) == 10
    assert "of job 'every state'" in done.err


def test_ls_without_sizes_reads_no_state(raystream, tmp_path):
    path, files = copied(snapshot("rocksdb"), tmp_path)
    for file in files:
        if "keyed" not in file.name:
            file.unlink()

    done = raystream("state", "ls", "--no-sizes", "--json", path)

    assert done.code == 0
    states = {state["name"]: state for op in json.loads(done.out)["operators"] for state in op["states"]}
    assert states["hits"]["entries"] is None
    assert states["hits"]["largest_keys"] == []
    assert states["positions"]["entries"] == 4


def test_ls_as_json_has_what_the_table_has(raystream):
    done = raystream("state", "ls", snapshot("heap"), "--json")

    found = json.loads(done.out)
    assert (found["kind"], found["job_name"]) == ("checkpoint", "every state")
    (operator,) = [operator for operator in found["operators"] if operator["uid"] == UID]
    assert (operator["parallelism"], operator["max_parallelism"]) == (2, 16)
    states = {state["name"]: state for state in operator["states"]}
    assert states["by day/hour"]["type"] == "float"
    assert states["by day/hour"]["map_key_type"] == "str"
    assert states["hits"]["key_groups"] == [0, 16]
    assert len(states["hits"]["largest_keys"]) == 10


# ---- get ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("state", "lines"),
    [
        ("hits", ["3"]),
        ("paths", ['{"path": "/3", "seconds": 1.5}', '{"path": "/", "seconds": 0.0}']),
        ("by day/hour", ['"monday"\t3.0', '"tuesday"\t0.5']),
        ("_timers_event", [f"null\t{10**15 + 3}"]),
    ],
)
def test_get_prints_a_line_for_each_value(raystream, kind, state, lines):
    done = raystream("state", "get", snapshot(kind), UID, state, "('k', 3, b'\\xff')", "--literal")

    assert done.code == 0
    assert done.out.splitlines() == lines


def test_get_takes_the_key_as_text_unless_told_otherwise(raystream):
    done = raystream("state", "get", snapshot("rocksdb"), UID, "hits", "\udc80", "--json")

    assert done.code == 0
    found = json.loads(done.out)
    assert (found["key"], found["rows"]) == ("\udc80", [{"value": 0}])


def test_get_of_a_pickled_value_says_its_class(raystream):
    done = raystream("state", "get", snapshot("rocksdb"), UID, "bomb", '("k", 1, b"\\xff")', "--literal")

    assert done.out.startswith('"<pickle, ')
    assert done.out.endswith('_explode>"\n')


def test_get_of_a_key_that_is_not_there_shows_how_keys_look(raystream):
    done = raystream("state", "get", snapshot("heap"), UID, "hits", "k")

    assert done.code == 2
    assert done.out == ""
    cause, advice = done.error
    assert "no entry of this key" in cause
    assert "('k', " in advice
    assert "--literal" in advice


@pytest.mark.parametrize("key", ["k", "__import__('os')", "(1", "[" * 10_000, " " + "-" * 100_000 + "1"])
def test_get_of_a_key_that_is_no_literal_is_wrong_usage(raystream, key):
    done = raystream("state", "get", snapshot("heap"), UID, "hits", key, "--literal")

    assert done.code == 2
    assert done.error[0].startswith("error: key is not a literal")


def test_get_of_operator_state_says_that_it_has_no_keys(raystream):
    done = raystream("state", "get", snapshot("heap"), UID, "rules", "limit")

    assert done.code == 2
    assert "state is not keyed" in done.error[0]


# ---- export and diff ------------------------------------------------------------


def test_export_prints_the_path_of_the_file(raystream, tmp_path):
    done = raystream("state", "export", snapshot("rocksdb"), UID, "hits", str(tmp_path / "hits.parquet"))

    assert (done.code, done.out) == (0, f"{tmp_path}/hits.parquet\n")
    assert sorted(pq.read_table(tmp_path / "hits.parquet").column("value").to_pylist()) == list(range(KEYS))


def test_export_to_where_nothing_can_be_written_is_one_line(raystream, tmp_path):
    done = raystream("state", "export", snapshot("heap"), UID, "hits", str(tmp_path / "no" / "hits.parquet"))

    assert done.code == 2
    assert done.error[0].startswith("error: file cannot be written")


def test_diff_prints_states_that_differ_and_keys(raystream):
    done = raystream("state", "diff", snapshot("heap"), snapshot("heap", KEYS + 5), "--keys", "2")

    assert done.code == 0
    rows = [line.split() for line in done.out.splitlines()]
    assert [UID, "hits", "5", "0", "0", str(KEYS)] in rows
    assert sum(row[:3] == [UID, "hits", "added"] for row in rows) == 2


def test_diff_says_that_keys_are_in_other_key_groups(raystream):
    done = raystream("state", "diff", snapshot("heap"), snapshot("heap", KEYS, 8))

    assert (done.code, done.out) == (0, "")
    assert f"operator '{UID}' has max parallelism 8, and had 16" in done.err.splitlines()


def test_diff_as_json_has_states_that_do_not_differ_too(raystream):
    done = raystream("state", "diff", snapshot("heap"), snapshot("rocksdb"), "--json")

    found = {one["state"]: one for one in json.loads(done.out) if one["uid"] == UID}
    assert (found["hits"]["changed"], found["hits"]["unchanged"]) == (0, KEYS)


# ---- errors ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", [("ls",), ("get", UID, "hits", "k"), ("export", UID, "hits", "x.parquet")]
)
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_snapshot_is_one_line_that_names_the_file(raystream, kind, command, tmp_path):
    path, files = copied(snapshot(kind), tmp_path)
    for file in files:
        file.write_bytes(b"x" * file.stat().st_size)

    done = raystream("state", command[0], path, *command[1:])

    assert done.code == 2
    assert done.out == ""
    assert len(done.error) == 2
    assert any(str(file) in done.error[0] for file in files)


def test_path_that_is_no_snapshot_is_wrong_usage(raystream, tmp_path):
    done = raystream("state", "ls", str(tmp_path))

    assert done.code == 2
    assert done.error[0].startswith("error: path is not a snapshot")


# ---- check ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "source"), [("heap", "source"), ("native", "silent"), ("canonical", "silent")]
)
def test_check_of_a_program_that_fits_shows_all_states_and_starts_nothing(raystream, job, kind, source):
    done = raystream("state", "check", job(source=source), snapshot(kind))

    assert done.code == 0, done.err
    verdicts = {line.split()[0] for line in done.out.splitlines()[1:]}
    assert verdicts == {"matched"}
    assert "opened" in done.err
    assert "opened" not in done.out


def test_check_knows_of_what_backend_the_files_are(raystream, job):
    refused = raystream("state", "check", job(), snapshot("rocksdb"))
    fits = raystream("state", "check", "-D", "state.backend.type=rocksdb", job(), snapshot("rocksdb"))

    assert refused.code == 2
    assert "another state backend" in refused.error[0]
    assert fits.code == 0


def test_check_of_a_program_that_does_not_fit_lists_everything_at_once(raystream, job):
    done = raystream("state", "check", "--json", job(hits="str", days="by days/hour"), snapshot("heap"))

    assert done.code == 2
    found = {state["state"]: state for state in json.loads(done.out)["states"]}
    assert found["hits"]["verdict"] == "different"
    assert found["hits"]["note"] == "schema was 'int', is 'str'"
    assert found["by day/hour"]["verdict"] == "missing"
    assert found["by days/hour"]["verdict"] == "new"
    assert found["paths"]["verdict"] == "matched"
    assert (found["paths"]["entries"], found["positions"]["entries"]) == (KEYS, 4)
    cause, advice = done.error
    assert cause.startswith("error: snapshot has state that the program does not register")
    assert "migrate" in advice


def test_check_takes_state_that_may_be_dropped(raystream, job):
    refused = raystream("state", "check", job(uid="visitors"), snapshot("heap"))
    allowed = raystream("state", "check", "-n", job(uid="visitors"), snapshot("heap"))

    assert (refused.code, allowed.code) == (2, 0)
    assert "renamed to 'visitors'?" in refused.out


def test_check_tells_of_a_parallelism_above_the_key_groups(raystream, job):
    done = raystream("state", "check", job(parallelism=17), snapshot("heap"))

    assert done.code == 2
    assert "parallelism 17" in done.err


def test_check_tells_of_an_open_that_fails(raystream, job):
    done = raystream("state", "check", job(opening='raise OSError("no database")'), snapshot("heap"))

    assert done.code == 2
    assert "no database" in done.err
    assert "operator='count visits'" in done.err


def test_check_of_a_script_without_a_job_is_wrong_usage(raystream, script):
    done = raystream("state", "check", script("x = 1\n"), snapshot("heap"))

    assert done.code == 2
    assert "without running a job" in done.error[0]


def test_names_in_a_table_have_no_character_that_a_terminal_obeys(capsys):
    print_table(("uid", "state"), [("\x1b[2J", "[bold]\x9b1m")])

    assert capsys.readouterr().out.splitlines()[1].split() == ["\\x1b[2J", "[bold]\\x9b1m"]
