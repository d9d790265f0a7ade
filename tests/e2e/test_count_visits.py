"""The job that manifests for Kubernetes run, in one process with the configuration of a local cluster."""

from tests.e2e.conftest import ROOT
from tests.published import counts_by_key, one_to_n

VISITS, USERS = 500, 7


def test_every_visit_is_counted_once(raystream, tmp_path):
    places = {
        "state.backend.rocksdb.localdir": tmp_path / "state",
        "execution.checkpointing.dir": tmp_path / "checkpoints",
        "execution.checkpointing.savepoint-dir": tmp_path / "savepoints",
    }
    settings = [word for key, path in places.items() for word in ("-D", f"{key}={path}")]
    config = ROOT / "configs" / "kubernetes-local.yaml"
    job = ROOT / "jobs" / "count_visits.py"
    arguments = ["--out", tmp_path / "out", "--visits", str(VISITS), "--users", str(USERS), "--rate", "5000"]

    outcome = raystream("run", "--runner", "local", "-c", config, *settings, "-s", "latest", job, *arguments)

    assert outcome.code == 0, outcome.err
    assert counts_by_key(tmp_path / "out") == one_to_n(f"user {n % USERS}" for n in range(VISITS))
