"""The job that shows what a state backend costs, on each backend."""

import re

import pytest

from tests.e2e.conftest import ROOT

KEYS = 2_000
RECORDS = 5_000


@pytest.mark.parametrize("backend", ["hashmap", "rocksdb"])
def test_every_key_is_in_the_savepoint_and_a_job_on_the_other_backend_goes_on_from_it(
    raystream, tmp_path, backend
):
    def run(backend, *options):
        outcome = raystream(
            *("run", "--runner", "local", "-p", "2", "-c", ROOT / "configs" / f"{backend}-file.yaml"),
            *("-D", f"execution.checkpointing.dir={tmp_path}/checkpoints"),
            *("-D", f"execution.checkpointing.savepoint-dir={tmp_path}/savepoints"),
            *options,
            *(ROOT / "jobs" / "keyed_state_backends.py", "--backend", backend),
            *("--keys", str(KEYS), "--record-bytes", "100", "--records", str(RECORDS)),
        )
        assert outcome.code == 0, outcome.err
        (emitted,) = re.findall(r"records, ([\d,]+) keys", outcome.out)
        (savepoint,) = re.findall(r"^savepoint: (.+)$", outcome.out, re.MULTILINE)
        return int(emitted.replace(",", "")), savepoint

    emitted, savepoint = run(backend)
    assert emitted == KEYS, "each key is new once"
    other = "rocksdb" if backend == "hashmap" else "hashmap"
    emitted, _ = run(other, "-s", savepoint)
    assert emitted == 0, "all keys were restored"
