"""A minute of `benchmarks/chaos.py`: whatever dies, stands still or is away, the output is right."""

import os
import subprocess
import sys

import pytest

from tests.ray.conftest import ROOT

FAULTS = ("kill-worker", "kill-master", "kill-node", "stop-worker", "stop-master", "full-disk", "s3-away")
PATIENCE_S = 600


@pytest.mark.long
def test_output_is_exactly_the_reference_after_a_minute_of_chaos():
    command = [
        sys.executable, "benchmarks/chaos.py", "--seconds", "60", "--seed", "1", "--faults", ",".join(FAULTS),
        "--stopped-seconds", "5", "--away-seconds", "5",
    ]  # fmt: skip
    # It has a cluster and an S3 server of its own.
    env = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_"))}

    done = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )

    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-4_000:]}"
    assert "output is exactly the reference" in done.stdout.splitlines()
    injected = {line.split()[0] for line in done.stdout.splitlines() if line}
    assert injected >= {name for name in FAULTS if f"skipped: {name}" not in done.stderr}
