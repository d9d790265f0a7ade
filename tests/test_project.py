"""Files that describe the project agree with it."""

import re
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


@pytest.mark.parametrize("path", FRAGMENTS, ids=lambda path: path.name)
def test_news_fragment_has_a_kind_and_a_text(path):
    assert re.fullmatch(r"[\w-]+\.(added|changed|deprecated|removed|fixed|security)\.md", path.name)
    assert path.read_text(encoding="utf-8").strip()
