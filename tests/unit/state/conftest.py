"""Where the tests of local stores keep their files."""

import tempfile
from pathlib import Path

import pytest

_MEMORY = Path("/dev/shm")


@pytest.fixture
def local_path(tmp_path):
    """An empty directory, in memory where there is such a file system: RocksDB syncs its files."""
    if not _MEMORY.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=_MEMORY) as path:
        yield Path(path)
