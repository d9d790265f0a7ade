"""What every test may use.  Fixtures that need a Ray cluster are in `tests/ray/conftest.py`."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.memory import directory_in_memory

settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, database=None, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")

# A shell has what it starts in the background ignore Ctrl-C, and that is inherited by what tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--seeds", type=int, default=30, metavar="N", help="simulate every job with the seeds 0 to N-1"
    )
    parser.addoption(
        "--one-shot-keys",
        type=int,
        default=100_000,
        metavar="N",
        help="let N keys that come once expire; 1000000 takes a minute",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(scope="session")
def seeds(request: pytest.FixtureRequest) -> range:
    """Seeds of the fault simulation."""
    return range(request.config.getoption("--seeds"))


@pytest.fixture(scope="session")
def in_ci() -> bool:
    """True where a missing component is a failure; elsewhere its tests are skipped by name."""
    return bool(os.environ.get("CI"))


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A temporary directory with a path short enough for Unix sockets, which end at 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="rs-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def local_path() -> Iterator[Path]:
    """An empty directory for RocksDB, in memory where there is such a file system."""
    with directory_in_memory() as path:
        yield path


@pytest.fixture
def go(tmp_path: Path) -> Path:
    """The file that a `HeldSource` waits for."""
    return tmp_path / "go"
