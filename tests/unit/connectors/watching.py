"""What tests of watched files share: a job that watches a directory, and a writer."""

import contextlib
import random
from pathlib import Path

from raystream.connectors.file_tail import decode_word
from raystream.connectors.files import FileSource
from raystream.testing.source_run import SourceRun

INTERVAL_MS = 1000


class Watch:
    """A watching job on one directory, with its own clock."""

    def __init__(self, pattern, parallelism=1, snapshot=None, **options):
        self.source = FileSource.lines(pattern, watch=INTERVAL_MS, **options)
        self.run = SourceRun(self.source, parallelism, random.Random(1), snapshot=snapshot)

    def read(self, intervals=2):
        """Return what comes within some intervals."""
        self.run.records = []
        for _ in range(intervals):
            self.run.tick()
            self.run.read_what_is_there()
        return self.run.records

    def restart(self, pattern=None, parallelism=1):
        snapshot = self.run.snapshot()
        self.run.close()
        return Watch(pattern or self.source.pattern, parallelism, snapshot)

    @property
    def files(self):
        """Snapshots of the files that are followed."""
        files = [raw for run in self.run.readers for raw in run.reader.snapshot()]
        return [raw for raw in files if not decode_word(raw).gone]


def open_files(directory):
    """Paths of the open descriptors of this process in a directory."""
    paths = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            paths.append(str(descriptor.readlink()))
    return [path for path in paths if path.startswith(str(directory))]


def append(path, text):
    with path.open("a") as file:
        file.write(text)
