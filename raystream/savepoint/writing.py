"""Writes a canonical savepoint: of states that somebody gives, of states of another snapshot, or of both.

    given     table ──▶ rows, checked, with key groups ──▶ chunks ─┐
                                                                  ├──▶ parts of each subtask ──▶ `_metadata`
    base      chunks of any snapshot, as they are stored ──────────┘

`_metadata` comes last, so that there is a savepoint or none.  Of the base, nothing is decoded or unpickled.
"""

import platform
import secrets
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from raystream.clock import SystemClock, TimeDomain
from raystream.errors import ConfigError, StateError, StateRestoreError, StorageError
from raystream.graph.logical import check_uid, is_text
from raystream.handles import SavepointFormat, StateInfo
from raystream.ids import CheckpointId, JobId, OperatorUid
from raystream.keygroup import KeyGroupRange, check_parallelism, default_max_parallelism
from raystream.records.elements import WATERMARK_MAX_MS, WATERMARK_MIN_MS, SnapshotKind
from raystream.savepoint.casting import Target
from raystream.savepoint.given import (
    Given,
    KeyedState,
    OperatorState,
    Timers,
    declared_keyed,
    declared_operator,
    elements_of,
)
from raystream.savepoint.opened import Savepoint
from raystream.savepoint.snapshot import SnapshotReader
from raystream.savepoint.storing import ElementContents, KeyedContents, OperatorContents, SavepointFiles
from raystream.savepoint.tables import keyed_rows
from raystream.state.canonical_chunks import chunks_of
from raystream.state.canonical_rows import KEY_GROUP, RowColumns
from raystream.state.chunk_form import BY_EVENT_TIME, TIMED
from raystream.state.operator_store import OperatorStateKind
from raystream.state.snapshot_format import StoredChunk
from raystream.state.ttl import Moment
from raystream.storage.claims import SnapshotClaims
from raystream.storage.filesystem import OpenFileSystem
from raystream.storage.layout import metadata_path
from raystream.storage.metadata import OperatorMetadata, SnapshotMetadata
from raystream.storage.snapshots import SnapshotStore
from raystream.storage.stores import open_file_system, to_url


def write(
    path: str,
    states: Iterable[Given] = (),
    *,
    base: Savepoint | None = None,
    drop: Iterable[str | tuple[str, str]] = (),
    max_parallelism: int | None = None,
    job_name: str | None = None,
    open_fs: OpenFileSystem = open_file_system,
) -> str:
    """Write a canonical savepoint, from which a job starts with `raystream run -s PATH`; return its path.

    Args:
        path: directory of the new savepoint, as path or URL; there is no savepoint in it.
        states: what is in it, each state once.
        base: an open savepoint or checkpoint.  Its states are in the new savepoint too, but for those that
            are given, which are replaced as a whole, and those that are dropped.
        drop: uids of operators of the base, or pairs of uid and name of a state.
        max_parallelism: number of key groups of operators that the base does not have; by default what a job
            of parallelism 1 has.  The job takes it over, unless it sets its own.
        job_name: by default that of the base.
        open_fs: gives the store of a URL.

    Raises:
        StateError: a table does not fit its state; tells operator, state, column and row (from 0).
        GraphError: no operator can have the uid of a state.
        StateRestoreError: what is to be dropped is not there.
        StateCorruptError: the base is damaged; nothing was written.
        ConfigError: there is a savepoint in the directory, or one is being written there; or no job has such
            a name, or such a number of key groups; or the base has records in flight.
        StorageError: the store refused.
    """
    _check_arguments(states, base, max_parallelism, job_name)
    directory = to_url(path)
    _check_free(directory, open_fs)
    writing = _Writing(directory, base, open_fs, max_parallelism or default_max_parallelism(1))
    writing.collect(states, drop)
    return _run_alone(writing, directory, job_name, open_fs)


def _run_alone(writing: "_Writing", directory: str, job_name: str | None, open_fs: OpenFileSystem) -> str:
    """Write a savepoint while nobody else writes into its directory; raises as `write`."""
    claims = SnapshotClaims(JobId(secrets.token_hex(16)), open_fs=open_fs)
    claims.reserve(directory)
    try:
        _check_free(directory, open_fs)  # Again: another writer may have finished before it was reserved.
        written = writing.run(job_name)
    except BaseException:
        writing.discard()
        with suppress(StorageError):
            claims.release(directory)
        raise
    claims.release(directory)
    return written


def _check_free(directory: str, open_fs: OpenFileSystem) -> None:
    """Check that there is no savepoint in a directory.

    Raises:
        ConfigError: there is one.
        StorageError: the store did not answer.
    """
    if open_fs(directory).exists(metadata_path(directory)):
        raise ConfigError(
            "there is a savepoint in the directory already", hint="name a new directory", path=directory
        )


def _check_arguments(states: object, base: object, max_parallelism: int | None, job_name: object) -> None:
    """Refuse what no job has, and a path for the base or a single state for a list, as are easily given."""
    if job_name and not is_text(job_name):
        raise ConfigError("name of a job is not a text", name=job_name)
    if max_parallelism is not None:
        check_parallelism(1, max_parallelism)
    if base is not None and not isinstance(base, Savepoint):
        raise StateError(
            "base is not an open savepoint", hint="give what raystream.savepoint.open returns", given=base
        )
    if base is not None and any(subtask.channels for subtask in base.reader.metadata.subtasks):
        raise ConfigError(
            "base is a checkpoint with records in flight, which a savepoint does not have",
            hint="take a savepoint of the job, and give that",
            base=base.reader.directory,
        )
    if isinstance(states, Given):
        raise StateError("states are not a list", hint="put it into a list: [state]", given=states.name)


class _Writing:
    """One savepoint in the making."""

    def __init__(
        self, directory: str, base: Savepoint | None, open_fs: OpenFileSystem, max_parallelism: int
    ) -> None:
        self._base: SnapshotReader | None = None if base is None else base.reader
        self._max_parallelism = max_parallelism
        self._now_ms = SystemClock().wall_ms()
        self._operators: dict[str, OperatorContents] = {}
        self._files = SavepointFiles(directory, open_fs, created_ms=self._now_ms)
        self._store = partial(SnapshotStore, open_fs=open_fs)

    def collect(self, states: Iterable[Given], drop: Iterable[str | tuple[str, str]]) -> None:
        """Find out what will be in the savepoint; tables are checked here, before anything is written."""
        dropped = list(drop)
        if self._base is not None:
            for operator in self._base.metadata.operators:
                self._operators[operator.uid] = self._of_base(self._base, operator)
        for one in dropped:
            self._drop(one)
        names: set[tuple[str, str, bool]] = set()
        for given in states:
            name = (given.uid, given.name, isinstance(given, OperatorState))
            if name in names:
                raise StateError("state is given twice", operator=given.uid, state=given.name)
            names.add(name)
            self._add(given)

    def run(self, job_name: str | None) -> str:
        """Write everything, `_metadata` last; return the URL of the directory."""
        base = None if self._base is None else self._base.metadata
        stored = tuple(map(self._files.store, self._operators.values()))
        job_id = JobId(secrets.token_hex(16)) if base is None else base.job_id
        uids = {operator.uid for operator in stored}
        metadata = SnapshotMetadata(
            job_id=job_id,
            job_name=job_name if job_name is not None else base.job_name if base is not None else "",
            checkpoint_id=CheckpointId(1) if base is None else base.checkpoint_id,
            kind=SnapshotKind.SAVEPOINT,
            savepoint_format=SavepointFormat.CANONICAL,
            created_ms=self._now_ms,
            completed_ms=SystemClock().wall_ms(),
            operators=stored,
            python_version=platform.python_version() if base is None else base.python_version,
            enumerators=(
                {} if base is None else {uid: one for uid, one in base.enumerators.items() if uid in uids}
            ),
        )
        return self._store(job_id).write_metadata(self._files.directory, metadata)

    def discard(self) -> None:
        """Remove what was written."""
        self._files.discard()

    def _of_base(self, reader: SnapshotReader, operator: OperatorMetadata) -> OperatorContents:
        """Return an operator of the base, with all that it has."""
        contents = OperatorContents(
            uid=operator.uid,
            uid_generated=operator.uid_generated,
            name=operator.name,
            max_parallelism=operator.max_parallelism,
            parallelism=operator.parallelism,
            taken=_taken(reader, operator),
        )
        for name, state in reader.keyed_states(operator).items():
            contents.keyed[name] = KeyedContents(
                state.info, partial(_chunks_of_base, reader, operator, state.info.name)
            )
        for found in reader.elements(operator):
            state_of = contents.elements.setdefault(
                found.handle.name, ElementContents(found.info, found.handle.mode, operator.parallelism)
            )
            state_of.of_subtasks[found.subtask] = found.elements
        return contents

    def _drop(self, what: str | tuple[str, str]) -> None:
        uid, name = (what, None) if isinstance(what, str) else what
        contents = self._operators.get(uid)
        if contents is None or not (name is None or name in contents.keyed or name in contents.elements):
            raise StateRestoreError(
                "what is to be dropped is not in the base",
                hint="name an operator by its uid, or a state by a pair of uid and name",
                operator=uid,
                state=name or "",
            )
        if name is None:
            del self._operators[uid]
            return
        contents.keyed.pop(name, None)
        contents.elements.pop(name, None)

    def _add(self, given: Given) -> None:
        check_uid(given.uid, operator=str(given.uid))
        uid = OperatorUid(given.uid)
        contents = self._operators.get(uid)
        if contents is None:
            contents = OperatorContents(
                uid=uid, name=given.uid, max_parallelism=self._max_parallelism, parallelism=1, taken=[]
            )
        if isinstance(given, OperatorState):
            self._add_elements(contents, given)
        else:
            self._add_keyed(contents, given)
        self._operators[uid] = contents

    def _add_keyed(self, contents: OperatorContents, given: KeyedState | Timers) -> None:
        known = contents.keyed.get(given.name)
        info, times = declared_keyed(given, None if known is None else known.info)
        if known is not None and isinstance(given, KeyedState) and isinstance(given.state, str):
            times = _times_of(known, contents.groups)
        target = Target(
            uid=given.uid,
            info=info,
            max_parallelism=contents.max_parallelism,
            times=times,
            written_ms=self._written_ms(contents, times),
        )
        rows = keyed_rows(target, given.rows)
        if not contents.taken:
            contents.taken = [Moment(processing_ms=self._now_ms)] * contents.parallelism
        contents.keyed[given.name] = KeyedContents(info, partial(_chunks_of_rows, info, rows))

    def _written_ms(self, contents: OperatorContents, times: TimeDomain | None) -> int:
        """Return when rows were written that do not say it: now; in event time at the base's watermark."""
        if times is TimeDomain.EVENT_TIME:
            watermark_ms = max((taken.event_ms for taken in contents.taken), default=WATERMARK_MIN_MS)
            if WATERMARK_MIN_MS < watermark_ms < WATERMARK_MAX_MS:
                return watermark_ms
        return self._now_ms

    def _add_elements(self, contents: OperatorContents, given: OperatorState) -> None:
        known = contents.elements.get(given.name)
        info = declared_operator(given, None if known is None else known.info)
        target = Target(uid=given.uid, info=info, max_parallelism=contents.max_parallelism)
        elements = elements_of(target, given.rows)
        kind = OperatorStateKind(info.kind)
        made = ElementContents(info, kind.mode, contents.parallelism)
        made.deal(elements)
        contents.elements[given.name] = made


def _taken(reader: SnapshotReader, operator: OperatorMetadata) -> list[Moment]:
    """Return the time of the keyed state of each subtask; nothing when there is none."""
    found = [part.taken for part in reader.parts(operator)]
    # A subtask that had ended has none, and then nobody's time is its own.
    whole = len(found) == operator.parallelism
    return found if whole or not found else [found[0]] * operator.parallelism


def _chunks_of_base(
    reader: SnapshotReader, operator: OperatorMetadata, name: str, groups: KeyGroupRange
) -> Iterator[StoredChunk]:
    for _, stored in reader.chunks(operator, states={name}, groups=range(groups.start, groups.stop)):
        yield stored


def _chunks_of_rows(info: StateInfo, rows: pa.Table, groups: KeyGroupRange) -> Iterator[StoredChunk]:
    of_rows = rows.column(KEY_GROUP)
    wanted = pc.and_(pc.greater_equal(of_rows, groups.start), pc.less(of_rows, groups.stop))
    return chunks_of(RowColumns(info), rows.filter(wanted))


def _times_of(known: KeyedContents, groups: KeyGroupRange) -> TimeDomain | None:
    """Return of which time a stored state has times of writing, as its first chunk tells; None of none."""
    for stored in known.chunks(groups):
        form = stored.chunk.form
        if form & TIMED:
            return TimeDomain.EVENT_TIME if form & BY_EVENT_TIME else TimeDomain.PROCESSING_TIME
        return None
    return None
