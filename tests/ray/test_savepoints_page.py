"""The commands of docs/savepoints.md, run one after the other as they stand."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.published import counts_by_key
from tests.ray.conftest import NODE, ROOT, remove_nodes

PAGE = (ROOT / "docs/savepoints.md").read_text(encoding="utf-8")
PROGRAMS = ("visits.py", "visits_2.py", "correct.py", "bootstrap.py")
"""The programs of the page, in order."""
SLOTS = 3
TIMEOUT_S = 900


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def slots(ray_cluster):
    """Room for the slots of the page's job."""
    node = ray_cluster.add_node(**{**NODE, "num_cpus": SLOTS})
    yield
    remove_nodes(ray_cluster, [node])


@pytest.mark.long
@pytest.mark.usefixtures("slots")
def test_commands_of_the_page_run_as_they_stand_and_every_visit_is_counted_once(address, tmp_path):
    programs = dict(zip(PROGRAMS, blocks("python"), strict=True))
    (configuration,) = blocks("yaml")
    for name, text in {**programs, "visits.yaml": configuration}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    commands = ["set -eux", *blocks("bash")]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

    done = subprocess.run(
        ["bash", "-c", "\n".join(commands)],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "RAY_ADDRESS": address},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert {"seen", "recent"} <= set(done.stdout.split()), "the states that the last command lists"
    counts = counts_by_key(tmp_path / "out")
    assert len(counts) == 100
    assert all(seen == list(range(1, len(seen) + 1)) for seen in counts.values())
    assert [path.name for path in tmp_path.glob("*before-the-upgrade")] == []
    assert not list(tmp_path.rglob("_claim"))
