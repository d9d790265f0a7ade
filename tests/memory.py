"""Directories in memory: what is tested syncs what it writes, and a disk takes its time for that."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MEMORY = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
"""Where directories are in memory; None where there is no such file system, as `tempfile` has it."""


@contextmanager
def directory_in_memory() -> Iterator[Path]:
    """Make an empty directory, and remove it at the end."""
    path = Path(tempfile.mkdtemp(dir=MEMORY))
    yield path
    shutil.rmtree(path)
