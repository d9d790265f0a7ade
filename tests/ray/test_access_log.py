"""The main job on Ray, from the command line, counts every request of a log exactly once."""

import os
import subprocess
import sys

import pytest

from tests.access_logs import (
    JOB,
    REAL_LOG,
    Expected,
    assert_counted_exactly_once,
    assert_real_log_counted,
    needs_real_log,
)
from tests.ray.conftest import PATIENCE_S

RAYSTREAM = (sys.executable, "-m", "raystream.cli")


@pytest.fixture
def run_job(address, tmp_path):
    """Run the job on the session's cluster at parallelism 2, checkpoints included; its slots take no CPU."""

    def run(*arguments):
        settings = {
            "slot.cpus": 0,
            "execution.checkpointing.interval": "100ms",
            "execution.checkpointing.dir": tmp_path / "checkpoints",
        }
        defined = [word for key, value in settings.items() for word in ("-D", f"{key}={value}")]
        return subprocess.run(
            [*RAYSTREAM, "run", "-p", "2", *defined, str(JOB), *map(str, arguments)],
            env=os.environ, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip

    return run


def test_log_of_both_formats_is_counted_and_its_broken_lines_are_rejected_exactly_once(run_job, tmp_path):
    expected = Expected()
    expected.append_to(tmp_path / "mixed.log", lines=30_000, seed=1)

    done = run_job("mixed.log", "--out", "out")

    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert_counted_exactly_once(tmp_path / "out", expected)


@needs_real_log
def test_real_log_has_the_counts_of_an_independent_program(run_job, tmp_path):
    done = run_job(REAL_LOG, "--out", "out")

    assert done.returncode == 0, done.stderr
    assert_real_log_counted(tmp_path / "out")
