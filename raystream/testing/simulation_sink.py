"""The sink of a simulated job: exactly-once output in the simulated store.

    <output>/pending/<part>    durable, written at a barrier, nobody sees it
    <output>/visible/<part>    published when the checkpoint is complete

Built on the public contract of sinks only.  A part is named after the checkpoint that it was
prepared for, and who wrote it.
"""

import pickle
import re
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from raystream.errors import StorageError
from raystream.operators.sink import Committer, SinkWriter, WriterContext
from raystream.records.batch import RowBatch
from raystream.storage.filesystem import FileSystem, MissingFileError, join_url

OUTPUT_URL = "memory://simulated-output"

_PART = re.compile(r"(?P<job>[0-9a-f]{32})-c(?P<checkpoint>[0-9]+)-a(?P<attempt>[0-9]+)-s(?P<subtask>[0-9]+)")

_stores: dict[str, FileSystem] = {}
"""The store of each run that is under way, by the run's name: a sink is pickled and cannot hold it."""


class SimulatedSink:
    """Writes to the store of a simulated run.

    Args:
        run: name of the run.
    """

    transactional = True

    def __init__(self, run: str) -> None:
        self._run = run

    def open_writer(self, context: WriterContext) -> SinkWriter:
        """Return what collects the records of one subtask."""
        return _Writer(_stores[self._run], context)

    def open_committer(self, context: WriterContext) -> Committer:
        """Return what publishes parts."""
        return _Committer(_stores[self._run])


class _Writer:
    def __init__(self, fs: FileSystem, context: WriterContext) -> None:
        self._fs = fs
        self._context = context
        self._values: list[Any] = []
        self._prepared: deque[tuple[str, bytes]] = deque()
        self._to_keep: deque[str] = deque()

    def start(self) -> None:
        """Remove the parts of dead attempts; whatever was to be published of them is."""
        context = self._context
        for entry in self._fs.list_dir(join_url(OUTPUT_URL, "pending")):
            part = _parsed(entry.name)
            own = part["job"] == context.job_id
            mine = int(part["subtask"]) % context.parallelism == context.subtask
            if own and mine and int(part["attempt"]) < context.attempt:
                self._fs.delete_file(_pending(entry.name))

    def write(self, batch: RowBatch) -> None:
        self._values += batch.values

    def prepare_commit(self, checkpoint_id: int) -> list[bytes]:
        if not self._values:
            return []
        context = self._context
        part = f"{context.job_id}-c{checkpoint_id}-a{context.attempt}-s{context.subtask}"
        self._prepared.append((_pending(part), pickle.dumps(self._values)))
        self._values = []
        return [part.encode()]

    def sync(self) -> None:
        while self._prepared:
            self._fs.write(*self._prepared[0])
            self._prepared.popleft()
        while self._to_keep:
            part = self._to_keep[0]
            if self._fs.exists(_pending(part)):
                self._fs.create_exclusive(_kept(part), self._fs.read(_pending(part)))
            self._to_keep.popleft()

    def keep(self, committables: Sequence[bytes]) -> None:
        self._to_keep.extend(committable.decode() for committable in committables)

    def abort(self) -> None:
        self._values = []

    def close(self) -> None:
        """Have nothing more written: the next attempt removes what is there."""
        self._prepared.clear()
        self._to_keep.clear()


class _Committer:
    def __init__(self, fs: FileSystem) -> None:
        self._fs = fs

    def commit(self, committables: Sequence[bytes]) -> None:
        for committable in committables:
            self._publish(committable.decode())

    def _publish(self, part: str) -> None:
        try:
            data = self._fs.read(_pending(part))
        except MissingFileError as error:
            if self._fs.exists(_visible(part)):
                return
            if not self._fs.exists(_kept(part)):
                raise StorageError("pre-committed output is missing", part=part) from error
            data = self._fs.read(_kept(part))
        self._fs.create_exclusive(_visible(part), data)
        self._fs.delete_file(_pending(part))


def _pending(part: str) -> str:
    return join_url(OUTPUT_URL, "pending", part)


def _kept(part: str) -> str:
    return join_url(OUTPUT_URL, "kept", part)


def _parsed(name: str) -> re.Match[str]:
    found = _PART.fullmatch(name)
    assert found is not None, name
    return found


def _visible(part: str) -> str:
    return join_url(OUTPUT_URL, "visible", part)


def checkpoint_of_output(url: str) -> int | None:
    """Return the checkpoint that a visible part was prepared for; None for any other file."""
    if not url.startswith(_visible("")):
        return None
    return int(_parsed(url.removeprefix(_visible("")))["checkpoint"])


def visible_records(files: Mapping[str, bytes]) -> list[Any]:
    """Return the records that an outside reader sees, in no order that means anything."""
    parts = [files[url] for url in sorted(files) if url.startswith(_visible(""))]
    return [record for part in parts for record in pickle.loads(part)]


def pending_parts(files: Mapping[str, bytes], job_id: str) -> list[str]:
    """Return the parts that a job has written and not published."""
    return [url for url in sorted(files) if url.startswith(_pending(job_id))]


def open_store(run: str, fs: FileSystem) -> None:
    """Let the sinks of a run find its store."""
    _stores[run] = fs


def close_store(run: str) -> None:
    """The run is over."""
    del _stores[run]
