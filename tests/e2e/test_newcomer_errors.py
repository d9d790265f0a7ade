"""Mistakes of a newcomer: one line of cause, one of advice, the right exit code, no traceback of ours."""

import re

import pytest

from tests.e2e.conftest import ROOT

LOCAL = ("run", "--runner", "local")

NUMBERS = """\
import sys
from raystream import StreamEnvironment
from raystream.connectors.datagen import DatagenSource

env = StreamEnvironment()
numbers = env.from_source(DatagenSource(lambda i: (i % 10, 1), count={count}, rate=100), uid="numbers")
numbers.key_by(lambda value: value[0]).sum(1, uid="{uid}", name="total").print(uid="print")
"""
STOPPED = NUMBERS + 'print(env.submit("{name}").stop("savepoints"))\n'
EXECUTED = NUMBERS + 'env.execute("{name}")\n'


def job(operations: str, before: str = "") -> str:
    """Return a script with these operations on the collection `["1", "2", "x3", "4"]`."""
    return (
        f"from raystream import StreamEnvironment\n{before}\n"
        'stream = StreamEnvironment().from_collection(["1", "2", "x3", "4"])\n'
        f'stream.{operations}.print()\nstream._environment.execute("newcomer")\n'
    )


def refused(outcome, *, code: int, cause: str, advice: str) -> None:
    """Assert how the command ended; `cause` and `advice` are patterns of the whole line."""
    assert outcome.code == code, outcome.err
    assert re.fullmatch(cause, outcome.cause), outcome.cause
    assert re.fullmatch(advice, outcome.advice), outcome.advice
    assert f"{ROOT}/raystream/" not in outcome.err


def test_no_such_file(raystream):
    refused(
        raystream(*LOCAL, ROOT / "jobs" / "access_log_count.py", "missing.log", "--out", "out"),
        code=2,
        cause=r"no such file \(path='.*/missing\.log' job_id='\w{32}'\)",
        advice="the path must exist on every node that runs the job",
    )


def test_key_that_is_a_list(raystream, script):
    refused(
        raystream(*LOCAL, script(job("key_by(lambda text: [text]).reduce(max)"))),
        code=1,
        cause=r"key of type list has no stable encoding \(operator='collection' .*record=\"'1'\".*\)",
        advice=r"use tuple\(\.\.\.\) of it",
    )


def test_lambda_that_raises_on_a_record(raystream, script):
    outcome = raystream(*LOCAL, script(job('map(lambda text: int(text), name="parse")')))

    refused(
        outcome,
        code=1,
        cause=r"user function raised \(operator='parse' uid='\w+' subtask=0 cause=\"ValueError: invalid"
        r" literal for int\(\) with base 10: 'x3'\" record=\"'x3'\" job_id='\w{32}'\)",
        advice="the traceback above is of the job's own code: correct it, or handle the record there",
    )
    assert '.map(lambda text: int(text), name="parse")' in outcome.err
    assert "\nValueError: invalid literal for int() with base 10: 'x3'\n" in outcome.err


LOCK = """\
import threading
lock = threading.Lock()
def guarded(v):
    with lock: return v
"""
GUARD = """\
import threading
class Guard:
    def __init__(self): self.lock = threading.Lock()
    def __call__(self, v): return v
"""


@pytest.mark.parametrize(
    ("before", "function", "variable"), [(LOCK, "guarded", "lock"), (GUARD, "Guard()", "self.lock")]
)
def test_function_that_cannot_be_pickled(raystream, script, before, function, variable):
    refused(
        raystream(*LOCAL, script(job(f'map({function}, name="guard")', before))),
        code=2,
        cause=r"function of an operator cannot be shipped to the slots \(operator='guard'"
        rf" variable='{re.escape(variable)}' type='lock' .*\)",
        advice=r"create the object in open\(\), which runs in the subtask, or in the function itself",
    )


def test_configuration_key_that_is_misspelt(raystream, script):
    refused(
        raystream(*LOCAL, "-D", "execution.checkpoint.interval=1s", script(job("map(int)"))),
        code=2,
        cause=r"no configuration key has this name \(key='execution\.checkpoint\.interval'"
        r" where='command line'\)",
        advice=r"did you mean execution\.checkpointing\.interval\? `raystream config` lists every key",
    )


def test_value_for_a_group_of_configuration_keys(raystream, script):
    refused(
        raystream(*LOCAL, "-D", "execution.checkpointing=1s", script(job("map(int)"))),
        code=2,
        cause=r"no configuration key has this name \(key='execution\.checkpointing' where='command line'\)",
        advice=r"did you mean execution\.checkpointing\.interval\? `raystream config` lists every key",
    )


def test_configuration_file_that_is_something_else(raystream, script):
    refused(
        raystream(*LOCAL, "-c", ROOT / "README.md", script(job("map(int)"))),
        code=2,
        cause=r"configuration file is not YAML \(path='.*/README\.md' line=\d+ cause=.*\)",
        advice="give a YAML file with one `key: value` per line; `raystream config` lists every key",
    )


def test_checkpoint_directory_that_is_not_writable(raystream, script, tmp_path):
    (tmp_path / "file").write_text("a file where a directory should be; also root cannot write below it")

    refused(
        raystream(
            *LOCAL, "-D", "execution.checkpointing.interval=1s",
            "-D", "state.checkpoints.dir=file/checkpoints", script(job("map(int)")),
        ),
        code=2,
        cause=r"checkpoint directory cannot be written \(path='file://.*/file/checkpoints' .*\)",
        advice="a part of the path is a file; choose another directory",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("path", "cause"),
    [
        ("missing", r"snapshot does not exist \(path='file://.*/missing'\)"),
        (".", r"path is not a snapshot: it has no _metadata \(path='file://.*\)"),
    ],
)
def test_restore_from_a_wrong_path(raystream, script, path, cause):
    outcome = raystream(*LOCAL, "-s", path, script(job("map(str)")))

    assert "FAILED" not in outcome.err  # There has never been a job.
    refused(
        outcome,
        code=2,
        cause=cause,
        advice=r"give the directory of a checkpoint \(.*/chk-<n>\) or savepoint \(.*/savepoint-.*\)",
    )


def test_stream_without_a_sink(raystream, script):
    without = script(job("map(int)").replace(".print()", ""))
    refused(
        raystream(*LOCAL, without),
        code=2,
        cause=r"stream has no sink \(operator='map\(int\)'\)",
        advice=r"end it with \.sink_to\(\.\.\.\) or \.print\(\); .*",
    )


def test_parallelism_above_max_parallelism(raystream, script):
    refused(
        raystream(*LOCAL, "-p", "300", "-D", "pipeline.max-parallelism=256", script(job("map(int)"))),
        code=2,
        cause=r"parallelism is above max parallelism"
        r" \(parallelism\.default='300' pipeline\.max-parallelism='256'\)",
        advice=r"lower parallelism\.default or raise pipeline\.max-parallelism",
    )


def test_two_operators_with_one_uid(raystream, script):
    refused(
        raystream(*LOCAL, script(job('map(str, uid="a").map(str, uid="a")'))),
        code=2,
        cause=r"two operators have one uid \(uid='a' operators=\[.*\]\)",
        advice="give each operator a uid of its own; state is stored under it",
    )


def test_no_ray_cluster_at_the_address(raystream, script):
    refused(
        raystream("run", "--address", "127.0.0.1:9", script(job("map(int)"))),
        code=3,
        cause=r"no Ray cluster answers at the address \(address='127\.0\.0\.1:9'\)",
        advice=r"check that the cluster runs; the port is that of its head \(6379 by default\)",
    )


# ---- restores that do not fit -------------------------------------------------


@pytest.fixture
def savepoint(raystream, script):
    """Return the path of a savepoint of a job whose sum has the uid `total`."""
    outcome = raystream(*LOCAL, script(STOPPED.format(uid="total", name="numbers", count=None)))

    assert outcome.code == 0, outcome.err
    (path,) = [line for line in outcome.out.splitlines() if line.startswith("file://")]
    return path


def test_state_that_is_missing_in_the_new_program(raystream, script, savepoint):
    renamed = script(EXECUTED.format(uid="totals", name="numbers", count=50))

    outcome = raystream(*LOCAL, "-s", savepoint, renamed)

    refused(
        outcome,
        code=2,
        cause=r"snapshot does not fit the program: state of 1 operator\(s\) is not in the program \(.*\)",
        advice="give operators the uids they had, or drop this state with --allow-non-restored-state",
    )
    assert outcome.out == ""
    assert re.search(r"^  missing +total +total .*renamed to 'totals'\?$", outcome.err, re.MULTILINE)


def test_state_that_is_missing_may_be_dropped(raystream, script, savepoint):
    renamed = script(EXECUTED.format(uid="totals", name="numbers", count=50))

    outcome = raystream(*LOCAL, "-s", savepoint, "-n", renamed)

    assert outcome.code == 0
    assert "WARNING restored without some state" in outcome.err


def test_savepoint_of_another_job(raystream, script, savepoint):
    outcome = raystream(*LOCAL, "-s", savepoint, script(job("key_by(len).reduce(max)")))

    refused(
        outcome,
        code=2,
        cause=r"snapshot does not fit the program: state of 1 operator\(s\) .* job='numbers'\)",
        advice="give operators the uids they had, or drop this state with --allow-non-restored-state",
    )


def test_parallelism_above_the_max_parallelism_of_the_savepoint(raystream, script, savepoint):
    same = script(EXECUTED.format(uid="total", name="numbers", count=50))

    refused(
        raystream(*LOCAL, "-s", savepoint, "-p", "129", same),
        code=2,
        cause=r"snapshot does not fit the program: operator 'total' \(uid 'total'\) has parallelism 129,"
        r" above the max parallelism 128 of its state \(.*\)",
        advice="lower the parallelism, or set a max parallelism: keys are then dealt out anew .*",
    )
