"""Files that appear whole: the writer and the committer of `FileSink` for disks.

    .part-<uid>-<job>-<subtask>-<attempt>-<counter>.inprogress   while it is written, and pre-committed
    .part-<uid>-<job>-<subtask>-<attempt>-<counter>.inprogress.savepoint   a link, for a savepoint
     part-<uid>-<job>-<subtask>-<attempt>-<counter>              once its checkpoint is complete

Each checkpoint ends the file that is being written; it is made durable in a thread, before
the checkpoint can complete, and the commit renames it.  No two files get one name
(`raystream.connectors.part_names`).  If some other file has the final name all the same, the
commit fails: nothing visible is ever overwritten.

Unfinished files of older attempts are removed when an attempt starts and when it closes: by
then everything that a checkpoint knows of them is committed.  Three kinds of files stay until
somebody removes them: the links of savepoints that no job was restored from, what a slot
that was taken for dead begins to write after the last attempt of the job has closed, and the
marker that each job leaves (`raystream.connectors.file_place`).

Whoever reads the directory may remove what is visible, so that a restore may meet a name which is
nowhere.  It counts as read and removed only in the very directory that it was written to.  A
directory is made when everything that was restored is committed, and not before: none appears in
place of one that is away.

Knows names, bytes and durability; how records become bytes is a function it is given.
"""

import contextlib
import logging
import os
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from raystream.connectors.file_place import claim, marker_name, opened, removed, sync_directory, token_in
from raystream.connectors.file_rename import rename_exclusively
from raystream.connectors.part_names import FILE_FORMAT_VERSION, part_names
from raystream.connectors.versioned import decode, encode
from raystream.errors import OutputLostError, StorageError
from raystream.operators.sink import WriterContext, commit_all
from raystream.records.batch import RowBatch

logger = logging.getLogger(__name__)

IN_PROGRESS_PREFIX = "."
"""Hides unfinished files from shells and from most programs that read directories."""
IN_PROGRESS_SUFFIX = ".inprogress"
KEPT_SUFFIX = ".savepoint"
WRITE_BUFFER_BYTES = 256 << 10


class FileCommittable(msgspec.Struct, frozen=True, array_like=True):
    """A file, the name under which it becomes visible, both absolute, and who wrote it."""

    in_progress: str
    final: str
    job_id: str
    attempt: int
    token: str
    """By which that job knows the directory again."""


class PartFileWriter:
    """Writes the part files of one sink subtask."""

    def __init__(
        self, directory: str, encode_records: Callable[[list[Any]], bytes], context: WriterContext
    ) -> None:
        self._directory = Path(directory)
        self._encode_records = encode_records
        self._context = context
        self._names = part_names(context)
        self._path = self._directory
        self._file: BinaryIO | None = None
        self._unsynced: deque[tuple[Path, BinaryIO]] = deque()  # Taken out by whoever syncs, or closes.
        self._names_unsynced = False
        self._damaged: Path | None = None
        self._token: str | None = None  # None until the start.

    def start(self) -> None:
        """Make the directory if it is not there, and remove the unfinished files of dead attempts.

        Whatever was to be committed of them is.  Each file is removed by one subtask, also when
        there were more of them before.

        Raises:
            ConfigError: the directory cannot be made, or nothing can be written there.
            StorageError: the directory cannot be read or a file not removed.
        """
        self._token = claim(self._directory, self._context.job_id, attempt=self._context.attempt)
        self._sweep()

    def _sweep(self) -> None:
        try:
            with opened(self._directory) as place:
                if token_in(place, self._context.job_id) != self._token:
                    raise StorageError("output directory is another one now", path=str(self._directory))
                for name in sorted(filter(self._left_behind, os.listdir(place))):  # noqa: PTH208 - no path
                    logger.info(
                        "removing unfinished file of a dead attempt",
                        extra={"path": str(self._directory / name)},
                    )
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=place)
        except OSError as error:
            raise _storage_error("unfinished output cannot be removed", self._directory, error) from error

    def write(self, batch: RowBatch) -> None:
        """Append the records; the first ones after a checkpoint create the file.

        Raises:
            StorageError: the file cannot be written.
            GraphError: a record is not what the format takes.
        """
        if not batch.values:
            return
        data = self._encode_records(batch.values)
        try:
            if self._file is None:
                self._file = self._create()
            self._file.write(data)
        except OSError as error:
            raise _storage_error("output file cannot be written", self._path, error) from error

    def prepare_commit(self, checkpoint_id: int) -> list[bytes]:
        """End the file that is being written; `sync` makes it durable."""
        if self._file is None:
            return []
        assert self._token is not None, "write before start"
        self._unsynced.append((self._path, self._file))
        self._file = None
        self._names_unsynced = True
        file = FileCommittable(
            in_progress=str(self._path),
            final=str(_final_path(self._path)),
            job_id=self._context.job_id,
            attempt=self._context.attempt,
            token=self._token,
        )
        return [encode(FILE_FORMAT_VERSION, file)]

    def keep(self, committables: Sequence[bytes]) -> None:
        """Give the files a second name that no later attempt removes; the commit removes it.

        Raises:
            StorageError: a file cannot be linked.
        """
        for raw in committables:
            file = decode(raw, FILE_FORMAT_VERSION, FileCommittable, "output file")
            try:
                os.link(file.in_progress, _kept_path(file))
                self._names_unsynced = True
            except FileExistsError:
                continue  # An earlier savepoint has kept it.
            except FileNotFoundError:
                continue  # It is being committed, or was restored from a savepoint that kept it.
            except OSError as error:
                raise _storage_error("output file cannot be kept", Path(file.in_progress), error) from error

    def sync(self) -> None:
        """Make the files that `prepare_commit` has ended durable, and their names.

        Raises:
            StorageError: a file cannot be written, now or in an earlier call.
        """
        if self._damaged is not None:
            # After a failed fsync the system may have dropped what it could not write, and a second
            # one would succeed: nothing that holds this file may become a checkpoint.
            raise StorageError("output file was not written", path=str(self._damaged))
        path = self._directory
        try:
            while unsynced := self._take_unsynced():
                path, file = unsynced
                with file:
                    file.flush()
                    os.fsync(file.fileno())
            if self._names_unsynced:
                self._names_unsynced = False
                path = self._directory
                sync_directory(path)  # Else the file itself may be missing after a power cut.
        except OSError as error:
            self._damaged = path
            raise _storage_error("output file cannot be written", path, error) from error

    def abort(self) -> None:
        """Remove the file that is being written."""
        file, self._file = self._file, None
        if file is None:
            return
        _close(file)
        with contextlib.suppress(OSError):  # The next attempt removes what is left.
            self._path.unlink()

    def close(self) -> None:
        """Close the files and leave them where they are; remove what dead attempts left since the start."""
        if self._file is not None:
            _close(self._file)
            self._file = None
        while unsynced := self._take_unsynced():  # Nobody waits for it to become durable any more.
            _close(unsynced[1])
        if self._token is not None:
            try:
                self._sweep()
            except StorageError:
                logger.warning("unfinished files of dead attempts are left", exc_info=True)
            self._token = None

    def _take_unsynced(self) -> tuple[Path, BinaryIO] | None:
        """Return a file that is not durable yet; a thread that syncs and `close` never get the same one."""
        try:
            return self._unsynced.popleft()
        except IndexError:
            return None

    def _create(self) -> BinaryIO:
        self._path = self._directory / f"{IN_PROGRESS_PREFIX}{self._names.draw()}{IN_PROGRESS_SUFFIX}"
        return self._path.open("xb", buffering=WRITE_BUFFER_BYTES)

    def _left_behind(self, name: str) -> bool:
        """True for an unfinished file of this operator and job that is this subtask's to remove."""
        part = name.removeprefix(IN_PROGRESS_PREFIX).removesuffix(IN_PROGRESS_SUFFIX)
        return name == f"{IN_PROGRESS_PREFIX}{part}{IN_PROGRESS_SUFFIX}" and self._names.left_behind(part)


class PartFileCommitter:
    """Makes part files visible by renaming them."""

    def __init__(self, context: WriterContext) -> None:
        self._context = context

    def commit(self, committables: Sequence[bytes]) -> None:
        """Rename each file to its final name; one that has it already is left as it is.

        A file of another attempt that is under no name in the directory that it was written to was
        committed before that attempt ended, and whoever reads the directory has removed it since.
        A file of this one can only be lost there.

        Raises:
            StorageError: some file could not be renamed, or is lost; all others were.
            StateRestoreError: a committable of another version.
        """
        files = [decode(raw, FILE_FORMAT_VERSION, FileCommittable, "output file") for raw in committables]
        directories = dict.fromkeys(Path(file.final).parent for file in files)
        commit_all(
            [
                *(partial(self._commit, file) for file in files),
                *(partial(_sync_names, directory) for directory in directories),
            ]
        )

    def _commit(self, file: FileCommittable) -> None:
        if not _publish(file):
            self._missing(file)

    def _missing(self, file: FileCommittable) -> None:
        """Take in that a file is neither to be committed nor visible."""
        final = Path(file.final)
        names = [final.name, Path(file.in_progress).name, _kept_path(file).name]
        try:
            gone = removed(final.parent, names, job_id=file.job_id, token=file.token)
        except OSError as error:
            raise _elsewhere(file, error.strerror or str(error)) from error
        if not gone:  # It may be back when the commit is repeated.
            raise _elsewhere(file, "the marker of the job that wrote it is not there, or another one")
        context = self._context
        if (file.job_id, file.attempt) == (context.job_id, context.attempt):
            raise OutputLostError(
                "pre-committed output is missing",
                hint="its records are lost; was the output directory cleaned?",
                path=file.in_progress,
            )
        logger.warning(
            "output of an earlier attempt is not there any more; it counts as committed, read and removed",
            extra={"path": file.final},
        )


def _publish(file: FileCommittable) -> bool:
    """Give a file its final name unless it has it; False when it is under no name."""
    source, target, kept = Path(file.in_progress), Path(file.final), _kept_path(file)
    try:
        if source.exists():
            # Before, since a link that outlives the commit could be published a second time when
            # the visible file has been read and removed.
            kept.unlink(missing_ok=True)
        elif target.exists():
            return True
        elif kept.exists():
            source = kept  # An attempt that restored an older checkpoint has removed the first name.
        else:
            return False
        try:
            rename_exclusively(source, target)
        except (FileNotFoundError, FileExistsError):
            if source.exists():
                raise
            return target.exists()  # Renamed by a commit of an older attempt that was still under way.
        kept.unlink(missing_ok=True)  # A savepoint may have begun meanwhile.
    except OSError as error:
        raise _storage_error("output cannot be committed", target, error) from error
    return True


def _sync_names(directory: Path) -> None:
    """Make the names of files that were renamed durable."""
    try:
        sync_directory(directory)
    except OSError as error:
        raise _storage_error("output cannot be committed", directory, error) from error


def _kept_path(file: FileCommittable) -> Path:
    """Return the second name of a pre-committed file to which a savepoint refers."""
    return Path(file.in_progress + KEPT_SUFFIX)


def _final_path(in_progress: Path) -> Path:
    name = in_progress.name
    return in_progress.with_name(name[len(IN_PROGRESS_PREFIX) : -len(IN_PROGRESS_SUFFIX)])


def _close(file: BinaryIO) -> None:
    with contextlib.suppress(OSError):  # Nothing of this file counts.
        file.close()


def _elsewhere(file: FileCommittable, reason: str) -> StorageError:
    """Return what it means that a file is missing and its directory may not be the one it was written to."""
    directory = Path(file.final).parent
    return StorageError(
        "pre-committed output is missing, and its directory is not known to be the one it was written to",
        hint="mount the directory again, or share it between all nodes; if its files were removed on"
        f" purpose, put a file {marker_name(file.job_id)} with the text {file.token} there",
        directory=str(directory),
        path=file.in_progress,
        reason=reason,
    )


def _storage_error(message: str, path: Path, error: OSError) -> StorageError:
    return StorageError(message, path=str(path), reason=error.strerror or str(error))
