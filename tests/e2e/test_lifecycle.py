"""Jobs are interrupted and resumed from the command line; nothing is lost and nothing comes twice."""

import json
import shlex
import signal
from pathlib import Path

import pytest

from tests.published import records

LOCAL = ("run", "--runner", "local")

# Emits [key, n] for n = 1..100 of each of ten keys: slowly, unless a file `go` is there when it starts.
COUNTING = """\
from pathlib import Path

from raystream import KeyedProcessFunction, StreamEnvironment, ValueStateDescriptor
from raystream.connectors.datagen import DatagenSource
from raystream.connectors.files import FileSink


class Count(KeyedProcessFunction):
    def open(self, ctx):
        self.seen = ctx.get_state(ValueStateDescriptor("seen", int, default=0))

    def process_element(self, value, ctx):
        self.seen.update(self.seen.value() + 1)
        yield ctx.current_key, self.seen.value()


env = StreamEnvironment()
source = DatagenSource(lambda i: i % 10, count=1_000, rate=None if Path("go").exists() else 50)
numbers = env.from_source(source, name="numbers", uid="numbers")
counts = numbers.key_by(lambda key: key).process(Count(), name="count", uid="count")
counts.sink_to(FileSink.json_lines("out"), name="out", uid="out")
env.execute("counting")
"""
WATCHED = COUNTING.replace("else 50", "else 500")
"""The same in two seconds, so that its progress is seen."""
EVERY_COUNT = sorted([key, count] for key in range(10) for count in range(1, 101))


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    """Checkpoints every 100 ms in a directory."""
    directory = f"execution.checkpointing.dir={tmp_path / 'checkpoints'}"
    return ["-D", directory, "-D", "execution.checkpointing.interval=100ms"]


@pytest.fixture
def output(tmp_path: Path):
    """Return what is visible in the output directory."""

    def read() -> list[list[int]]:
        return sorted(records(tmp_path / "out"))

    return read


def interrupt(process, number: int) -> list[str]:
    """Send a signal after the second checkpoint; return all lines on standard error."""
    lines, checkpoints = [], 0
    for line in process.stderr:
        lines.append(line.rstrip("\n"))
        checkpoints += line.startswith("chk-")
        if line.startswith("chk-") and checkpoints == 2:
            process.send_signal(number)
    process.wait()
    return lines


def test_ctrl_c_prints_the_command_that_resumes_the_job(raystream, start, script, options, output):
    path = script(COUNTING)
    process = start(*LOCAL, "-p", "2", *options, path)
    lines = interrupt(process, signal.SIGINT)

    assert process.returncode == 130
    assert output() != EVERY_COUNT
    kept, resume = lines[-2:]
    assert kept.startswith("checkpoint ")
    words = shlex.split(resume.removeprefix("resume with: "))
    assert words[:3] == ["raystream", "run", "-s"]
    assert Path(words[3].removeprefix("file://"), "_metadata").exists()

    path.with_name("go").touch()
    assert raystream(*words[1:]).code == 0
    assert output() == EVERY_COUNT


def test_latest_resumes_the_newest_snapshot_of_the_job_at_another_parallelism(
    raystream, start, script, options, output
):
    path = script(COUNTING)
    interrupt(start(*LOCAL, "-p", "2", *options, path), signal.SIGINT)
    interrupt(start(*LOCAL, "-p", "3", "-s", "latest", *options, path), signal.SIGINT)
    assert output() != EVERY_COUNT

    path.with_name("go").touch()
    assert raystream(*LOCAL, "-s", "latest", *options, path).code == 0
    assert output() == EVERY_COUNT


def test_latest_is_a_new_start_when_there_is_nothing(raystream, script, options, output):
    assert raystream(*LOCAL, "-s", "latest", *options, script(WATCHED)).code == 0
    assert output() == EVERY_COUNT


def test_sigterm_cancels_a_job_in_this_process(start, script, options, output):
    process = start(*LOCAL, *options, script(COUNTING))
    lines = interrupt(process, signal.SIGTERM)

    assert process.returncode == 143
    assert any(" is CANCELED: " in line for line in lines)
    assert lines[-1].startswith("resume with: ")


def test_output_and_progress_do_not_mix(raystream, script, options):
    text = WATCHED.replace(
        'counts.sink_to(FileSink.json_lines("out"), name="out", uid="out")', "counts.print()"
    )

    outcome = raystream(*LOCAL, *options, script(text))

    assert outcome.code == 0
    assert sorted(outcome.out.splitlines()) == sorted(f"0> ({key}, {count})" for key, count in EVERY_COUNT)
    assert "chk-1 " in outcome.err
    assert "1,000 records in, 1,000 out" in outcome.err.splitlines()[-1]


def test_ended_job_is_listed_with_its_checkpoints(raystream, start, script, options):
    interrupt(start(*LOCAL, *options, script(COUNTING)), signal.SIGINT)

    (row,) = json.loads(raystream("list", "-a", "--json", *options).out)
    assert (row["name"], row["status"]) == ("counting", "CANCELED")
    checkpoints = json.loads(raystream("checkpoints", "counting", "--json", *options).out)
    ended = [one for one in checkpoints if one["status"] in ("completed", "deleted")]
    assert [one["checkpoint_id"] for one in ended][:2] == [1, 2]
    assert [one["status"] for one in ended] == ["deleted"] * (len(ended) - 1) + ["completed"]
    assert [bool(one["path"]) for one in ended] == [one["status"] == "completed" for one in ended]


def test_detached_without_a_cluster_ends_with_3(raystream, script):
    outcome = raystream("run", "-d", script(COUNTING))

    assert (outcome.code, outcome.out) == (3, "")
    assert "`ray start --head`" in outcome.advice


@pytest.mark.parametrize("command", ["list", "cancel x", "savepoint x", "stop x", "checkpoints x"])
def test_commands_on_jobs_without_a_cluster_end_with_3(raystream, command):
    outcome = raystream(*command.split())

    assert (outcome.code, outcome.out) == (3, "")
    assert outcome.cause == "no Ray cluster runs on this machine"
