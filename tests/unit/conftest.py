"""What every unit test may use."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.memory import directory_in_memory


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """An empty directory, in memory where there is such a file system."""
    with directory_in_memory() as path:
        yield path


@pytest.fixture(autouse=True)
def row(request):
    """Names of the rules of state that the test proves (`raystream.testing.state_rows`)."""
    return getattr(request, "param", ())
