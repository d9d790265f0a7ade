"""The commands of the manifests, as processes of this machine, with checkpoints in an object store."""

import json
import os
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator

import pytest

from tests.kuberay import Document
from tests.manifests import ROOT, cluster_specs, objects, of_kind
from tests.published import one_to_n
from tests.services.object_sinks import Output
from tests.services.pods import PodCluster, running_pods
from tests.services.servers import FaultyStore

pytestmark = [pytest.mark.ray, pytest.mark.long]

BUCKET = "my-bucket"
"""As configs/kubernetes-s3.yaml and the entry point have it."""
VISITS, USERS = 4_000, 100
TIMEOUT_S = 600


@pytest.fixture(scope="module")
def found(in_ci: bool) -> list[Document]:
    """The objects of the overlay for S3."""
    return objects("overlays/s3", in_ci)


@pytest.fixture(scope="module")
def output(moto_server: FaultyStore) -> Output:
    moto_server.client.create_bucket(Bucket=BUCKET)
    return Output(moto_server.client, BUCKET)


@pytest.fixture(scope="module")
def start(found: list[Document], moto_server: FaultyStore):
    """Start a cluster with one pod of each group."""
    (config,) = of_kind("ConfigMap", found)
    return lambda spec: running_pods(spec, config, moto_server.environment)


@pytest.fixture(scope="module")
def cluster(found: list[Document], start) -> Iterator[PodCluster]:
    """The cluster for many jobs, which is also like the one that KubeRay makes for a retry."""
    with start(cluster_specs(found)[0]) as running:
        yield running


def counts(output: Output, prefix: str) -> dict[str, list[int]]:
    """Return the counts that a job has published for each user, sorted."""
    by_user = defaultdict(list)
    for key, data in output.visible().items():
        if key.startswith(prefix):
            for line in data.decode().splitlines():
                user, count = json.loads(line)
                by_user[user].append(count)
    return {user: sorted(values) for user, values in by_user.items()}


def checkpoints(output: Output) -> list[str]:
    """Return the directories of complete checkpoints, newest last."""
    keys = [key for key in output.names() if key.endswith("/_metadata") and "/chk-" in key]
    return sorted((key.rpartition("/")[0] for key in keys), key=lambda key: int(key.rpartition("-")[2]))


def test_retry_on_a_new_cluster_goes_on_from_the_checkpoint_that_the_killed_one_has_left(
    found, start, output, request
):
    (job,) = of_kind("RayJob", found)
    entry_point = f"{job['spec']['entrypoint']} --visits {VISITS} --users {USERS} --rate 400"
    with start(cluster_specs(found)[1]) as first:
        ray_job = first.submit(entry_point)
        first.wait_until(lambda: len(checkpoints(output)) > 1 and first.status(ray_job) == "RUNNING")
        first.kill()
    left = checkpoints(output)

    cluster: PodCluster = request.getfixturevalue("cluster")
    retried = cluster.submit(entry_point)
    cluster.wait_until(lambda: cluster.status(retried) not in ("PENDING", "RUNNING"))

    logs = cluster.logs(retried)
    assert cluster.status(retried) == "SUCCEEDED", logs
    (started_from,) = [line.rpartition(" ")[2] for line in logs.splitlines() if " goes on from " in line]
    assert started_from.removeprefix(f"s3://{BUCKET}/") in left
    assert counts(output, "raystream/visits/") == one_to_n([f"user {n % USERS}" for n in range(VISITS)])


def runbook() -> list[str]:
    """Return the commands of the page that upgrade a job, and those that roll it back."""
    page = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    found = re.findall(r"^```bash\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return [commands for commands in found if "submit -d" in commands and '"$savepoint"' in commands]


def test_upgrade_that_goes_wrong_is_rolled_back_as_the_page_says(cluster, output, tmp_path):
    program = (ROOT / "jobs" / "count_visits.py").read_text(encoding="utf-8")
    wrong = program.replace("self.visits.value() + 1", "self.visits.value() + 2")
    assert wrong != program
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "count_visits.py").write_text(program, encoding="utf-8")
    (tmp_path / "jobs" / "count_visits_2.py").write_text(wrong, encoding="utf-8")
    shutil.copytree(cluster.directory / "config", tmp_path / "configs")
    upgrade, roll_back = runbook()
    out = f"s3://{BUCKET}/raystream/visits-1"
    start = f"raystream submit -d -c configs/kubernetes-s3.yaml jobs/count_visits.py --out {out}"
    commands = ["set -eux", start, upgrade, roll_back, 'raystream stop "count visits"']
    token = {name: cluster.environment[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "PATH")}

    done = subprocess.run(
        ["bash", "-c", "\n".join(commands)],
        cwd=tmp_path,
        env={**os.environ, **token, "RAY_ADDRESS": cluster.dashboard},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    first, rolled_back = (counts(output, f"raystream/visits-{version}/") for version in (1, 3))
    kept = {user: sorted(first.get(user, []) + rolled_back.get(user, [])) for user in {*first, *rolled_back}}
    assert first
    assert rolled_back
    assert {user: list(range(1, len(seen) + 1)) for user, seen in kept.items()} == kept
