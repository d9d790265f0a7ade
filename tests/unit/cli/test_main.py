"""The command line explains itself, and answers wrong usage with one line of cause and one of advice."""

import logging
import subprocess
import sys

import pytest

from raystream.cli.logs import LineFormatter
from raystream.errors import StateRestoreError


@pytest.mark.parametrize(
    ("arguments", "cause", "advice"),
    [
        (["rnu"], "no such command 'rnu'", "`raystream --help` shows what it takes"),
        (["run"], "missing argument 'JOB.py'", "`raystream run --help` shows what it takes"),
        (["run", "--fast", "job.py"], "no such option", "`raystream run --help` shows what it takes"),
        (["run", "-p", "0", "job.py"], "0 is not in the range", "`raystream run --help` shows what it takes"),
        (["run", "-p", "two", "job.py"], "not a valid integer", "`raystream run --help` shows what it takes"),
        (["run", "-D", "slot.cpus", "job.py"], "not KEY=VALUE", "`raystream run --help` shows what it takes"),
        (["run", "--runner", "flink", "job.py"], "not one of", "`raystream run --help` shows what it takes"),
        (["run", "--claim-mode", "x", "job.py"], "not one of", "`raystream run --help` shows what it takes"),
        (["run", "missing.py"], "job script cannot be read", "give the path of a Python file"),
        (["info", "missing.py"], "job script cannot be read", "give the path of a Python file"),
    ],
)
def test_wrong_usage_is_one_line_of_cause_and_one_of_advice(raystream, arguments, cause, advice):
    outcome = raystream(*arguments)

    assert (outcome.code, outcome.out) == (2, "")
    error, hint = outcome.err.splitlines()
    assert error.startswith("error: ")
    assert cause in error
    assert hint.startswith("hint: ")
    assert advice in hint


def test_without_a_command_it_shows_the_commands(raystream):
    outcome = raystream()

    assert (outcome.code, outcome.out) == (2, "")
    assert "Run the jobs of a script." in outcome.err


@pytest.mark.parametrize("command", [(), ("run",), ("state", "ls")])
def test_short_option_asks_for_help_too(raystream, command):
    outcome = raystream(*command, "-h")

    assert outcome.code == 0
    assert outcome.out == raystream(*command, "--help").out


def test_version_is_printed(raystream):
    outcome = raystream("--version")

    assert outcome.code == 0
    assert outcome.out.startswith("raystream ")


def test_config_explains_every_key(raystream):
    outcome = raystream("config")

    assert outcome.code == 0
    assert "parallelism.default\n    int, default 1\n    Number of subtasks of every operator" in outcome.out
    assert "also written state.checkpoints.dir\n" in outcome.out


def test_asking_for_help_imports_neither_ray_nor_rich_nor_parquet():
    program = (
        "import sys\nfrom raystream.cli.main import main\ncode = main(['run', '--help'])\n"
        "sys.exit(code or any(name in sys.modules for name in ('ray', 'rich', 'pyarrow')))"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: raystream run [OPTIONS] JOB.py [ARGS]..." in done.stdout


@pytest.mark.parametrize(
    "module",
    ["raystream", "raystream.cli.main", "raystream.runtime.coordinator", "raystream.runtime.slot"],
)
def test_what_every_process_imports_does_without_parquet(module):
    program = f"import sys\nimport {module}\nsys.exit('pyarrow' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


def test_package_can_be_run_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "raystream.cli", "--version"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0
    assert done.stdout.startswith("raystream ")


def test_log_line_ends_with_the_extra_fields():
    record = logging.makeLogRecord(
        {"name": "raystream.x", "levelname": "WARNING", "msg": "slot is %s", "args": ("slow",), "slot": 3}
    )

    assert LineFormatter().format(record).partition(" ")[2] == "WARNING slot is slow slot=3"


def logged(error):
    try:
        raise error
    except Exception:
        record = {"levelname": "WARNING", "msg": "attempt failed", "exc_info": sys.exc_info()}
        return LineFormatter().format(logging.makeLogRecord(record)).partition(" ")[2]


def test_log_line_of_an_error_of_ours_has_its_message_and_no_traceback():
    error = StateRestoreError("snapshot does not exist", hint="give another", path="/x")

    assert logged(error) == "WARNING attempt failed: snapshot does not exist (path='/x')"


def test_log_line_of_any_other_exception_has_a_traceback():
    assert logged(ZeroDivisionError("none")).splitlines()[1] == "Traceback (most recent call last):"
