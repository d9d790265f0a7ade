"""The main job on Ray, from the command line, counts every request of a log exactly once."""

import os
import re
import subprocess
import sys
from collections import Counter

import pytest

from tests.ray.access_logs import Expected, assert_counted_exactly_once, counts_by_path, records
from tests.ray.conftest import PATIENCE_S, ROOT

RAYSTREAM = (sys.executable, "-m", "raystream.cli")
JOB = ROOT / "jobs" / "access_log_count.py"
REAL_LOG = ROOT.parent / "shared" / "data" / "access.log"


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


@pytest.mark.skipif(not REAL_LOG.exists(), reason=f"{REAL_LOG.name}: the real log is not on this machine")
def test_real_log_has_the_counts_of_an_independent_program(run_job, tmp_path):
    done = run_job(REAL_LOG, "--out", "out")

    requests = re.findall(r'^[^"]*"[A-Z]+ (\S+) ', REAL_LOG.read_text(), flags=re.MULTILINE)
    found = counts_by_path(tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert found == {path: list(range(1, n + 1)) for path, n in Counter(requests).items()}
    assert (len(found), sum(map(len, found.values()))) == (1_498, 10_000)
    most = {path: len(found[path]) for path in ("/favicon.ico", "/style2.css", "/reset.css")}
    assert most == {"/favicon.ico": 807, "/style2.css": 546, "/reset.css": 538}
    assert records(tmp_path / "out" / "rejected") == []
