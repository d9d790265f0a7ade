"""Files that describe the project agree with it."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FRAGMENTS = sorted(path for path in (ROOT / "changelog.d").iterdir() if path.name != "README.md")


def test_every_dependency_has_a_documented_reason():
    described = set(re.findall(r"`([\w-]+)`", (ROOT / "docs/dependencies.md").read_text(encoding="utf-8")))
    required = [*PROJECT["dependencies"], *(r for e in PROJECT["optional-dependencies"].values() for r in e)]
    packages = {re.split(r"[\[>=<]", requirement)[0] for requirement in required} - {"raystream"}

    assert packages - described == set()


def test_all_is_every_extra_that_adds_a_feature():
    extras = set(PROJECT["optional-dependencies"]) - {"dev", "all"}

    assert PROJECT["optional-dependencies"]["all"] == [f"raystream[{','.join(sorted(extras))}]"]


def recipe(target: str) -> list[str]:
    """Return the commands of a target of the Makefile."""
    only_shown = ["make", "-n", "--no-print-directory", "-o", ".venv/.installed", target]
    made = subprocess.run(
        only_shown, cwd=ROOT, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=True
    )
    return made.stdout.splitlines()


def test_lint_looks_at_the_projects_own_directories_and_not_at_what_users_put_beside_them():
    (ruff,) = [command for command in recipe("lint") if "ruff check" in command]

    assert ruff.partition("ruff check ")[2].split() == ["raystream", "tests", "jobs", "benchmarks"]


def test_demo_begins_with_neither_output_nor_checkpoints_of_an_earlier_one():
    removed, run = recipe("demo")[:2]

    assert removed == "rm -rf out/demo out/demo-checkpoints"
    assert "/raystream run " in run


@pytest.mark.parametrize("path", FRAGMENTS, ids=lambda path: path.name)
def test_news_fragment_has_a_kind_and_a_text(path):
    assert re.fullmatch(r"[\w-]+\.(added|changed|deprecated|removed|fixed|security)\.md", path.name)
    assert path.read_text(encoding="utf-8").strip()
