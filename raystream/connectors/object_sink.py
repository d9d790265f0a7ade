"""Objects that appear whole: the writer and the committer of `FileSink` for object stores.

    an upload of part-<uid>-<job>-<subtask>-<attempt>-<counter>    while it is written, and pre-committed
             .part-<uid>-<job>-<subtask>-<attempt>-<counter>.savepoint   keeps the upload, for a savepoint
              part-<uid>-<job>-<subtask>-<attempt>-<counter>       once its checkpoint is complete

An upload is what an unfinished file is on a disk (`raystream.connectors.file_sink`), and its completion
the rename.  Parts are uploaded while records come; a checkpoint ends the upload with what is left over,
so that the next one begins a new object (a last part may be small).  The stream waits for parts when too many
are on their way, and at a checkpoint for none: `sync` does, before it can complete.  A committable is made
before that, so it names the upload and says how much is in it; the commit asks the store for the tags of the
parts, which it needs.

A commit that finds the object in place is done if the object has the marker of the upload.  One that
finds neither upload nor object decides as the sink for disks does: output of this attempt is lost; that
of an earlier one was committed then, and whoever reads the prefix has removed it.  Unless something else may
have aborted it: buckets often have a rule that aborts old uploads, and some stores do so after a day.  So
what a savepoint keeps was not committed, since the commit removes the name that keeps it; and of what is
older than such a rule can be, nobody knows: a user has to say so.

Uploads of dead attempts are aborted when an attempt starts and when it closes, but for those that a savepoint
keeps: by then everything that a checkpoint knows of them is committed.  Left behind are what a slot that was
taken for dead begins after the last attempt has closed; as on disks, what a cancelled job had pre-committed,
since its newest checkpoint may refer to it; and what a savepoint keeps that no job is restored from.

Knows names, parts and what is to be committed; how the store is talked to is known to
`raystream.storage.s3_uploads`.
"""

import logging
import secrets
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from raystream.clock import SystemClock
from raystream.connectors.file_place import marker_name
from raystream.connectors.object_place import claim_prefix, taken_name, token_at
from raystream.connectors.part_names import part_names
from raystream.connectors.upload_committable import UploadCommittable, decode_upload, encode_upload
from raystream.errors import OutputLostError, StorageError
from raystream.operators.sink import WriterContext, commit_all
from raystream.records.batch import RowBatch
from raystream.storage.filesystem import FileSystem, MissingFileError, join_url, split_url
from raystream.storage.s3 import PARTS_MAX
from raystream.storage.s3_uploads import Upload, Uploads, open_uploads
from raystream.storage.stores import open_file_system

logger = logging.getLogger(__name__)

PART_BYTES = 8 << 20
"""Size from which what is buffered becomes a part; the least that stores take is 5 MiB."""

CLEAN_UP_SECONDS_MAX = 5.0
"""Time that an attempt which ends waits for a store to abort uploads; its slot waits too."""

ABORTED_AFTER_MS_MIN = 12 * 60 * 60 * 1000
"""Age below which no rule aborts an upload: the shortest takes a day, and clocks may differ."""

KEPT_PREFIX, KEPT_SUFFIX = ".", ".savepoint"
_MARKER_BYTES = 8


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """What the sink needs of a store: small files, and uploads."""

    files: FileSystem
    uploads: Uploads


def open_object_store(url: str) -> ObjectStore:
    """Return the store that holds a URL; asks it nothing yet.

    Raises:
        ConfigError: the URL names no bucket.
    """
    return ObjectStore(open_file_system(url), open_uploads())


class PartObjectWriter:
    """Writes the objects of one sink subtask."""

    def __init__(
        self,
        prefix: str,
        encode_records: Callable[[list[Any]], bytes],
        context: WriterContext,
    ) -> None:
        self._prefix = prefix
        self._encode_records = encode_records
        self._context = context
        self._store = open_object_store(prefix)
        self._names = part_names(context)
        self._clock = SystemClock()
        self._token: str | None = None  # None until the start.
        self._upload: Upload | None = None
        self._buffered: list[bytes] = []  # For the next part of it.
        self._buffered_bytes = 0
        self._ended: list[Upload] = []  # Since the last checkpoint.
        self._unsynced: deque[Upload] = deque()  # Taken out by whoever syncs, or closes.
        self._unkept: deque[UploadCommittable] = deque()
        self._damaged: str | None = None

    def start(self) -> None:
        """Mark the prefix, and abort the uploads of dead attempts; whatever was to be committed of them is.

        Raises:
            StorageError: the prefix cannot be read or written, or an upload not aborted.
        """
        context = self._context
        self._token = claim_prefix(self._store.files, self._prefix, context.job_id, attempt=context.attempt)
        self._sweep()

    def _sweep(self) -> None:
        uploads, files = self._store.uploads, self._store.files
        for upload in uploads.unfinished(join_url(self._prefix, self._names.prefix)):
            prefix, name = split_url(upload.url)
            if (
                prefix != self._prefix
                or not self._names.left_behind(name)
                or files.exists(_kept_url(upload.url))
            ):
                continue
            logger.info("aborting upload of a dead attempt", extra={"path": upload.url})
            uploads.abort(upload.url, upload.upload_id)

    def write(self, batch: RowBatch) -> None:
        """Append the records; the first ones after a checkpoint begin an upload.

        Raises:
            StorageError: the store refused an earlier part.
            GraphError: a record is not what the format takes.
        """
        if not batch.values:
            return
        data = self._encode_records(batch.values)
        if self._upload is None:
            url = join_url(self._prefix, self._names.draw())
            marker, now_ms = secrets.token_hex(_MARKER_BYTES), self._clock.wall_ms()
            self._upload = self._store.uploads.begin(url, marker, begun_ms=now_ms)
        self._buffered.append(data)
        self._buffered_bytes += len(data)
        if self._buffered_bytes >= PART_BYTES:
            self._add_part(self._upload)
            if self._upload.part_count == PARTS_MAX:
                self._end_upload()

    def prepare_commit(self, checkpoint_id: int) -> list[bytes]:
        """End the object that is being written; `sync` waits until all of it is stored.

        Raises:
            StorageError: the store refused to begin the upload, or an earlier part.
        """
        assert self._token is not None, "write before start"
        self._end_upload()
        ended, self._ended = self._ended, []
        self._unsynced.extend(ended)
        return [
            encode_upload(
                UploadCommittable(
                    url=upload.url,
                    # Asked for when the first record came, so it is there unless that was just now.
                    upload_id=upload.upload_id,
                    part_count=upload.part_count,
                    size_bytes=upload.size_bytes,
                    marker=upload.marker,
                    job_id=self._context.job_id,
                    attempt=self._context.attempt,
                    token=self._token,
                    begun_ms=upload.begun_ms,
                )
            )
            for upload in ended
        ]

    def keep(self, committables: Sequence[bytes]) -> None:
        """Have `sync` leave a name beside each upload, so that no later attempt aborts it."""
        self._unkept.extend(map(decode_upload, committables))

    def sync(self) -> None:
        """Wait until everything that `prepare_commit` has ended is stored, and leave the names of `keep`.

        Raises:
            StorageError: a part is not stored, now or in an earlier call.
        """
        if self._damaged is not None:
            raise StorageError("output was not written", path=self._damaged)
        while (upload := _taken(self._unsynced)) is not None:
            try:
                upload.wait()
            except StorageError:
                self._damaged = upload.url
                raise
        while (kept := _taken(self._unkept)) is not None:
            try:
                self._keep(kept)
            except StorageError:
                self._unkept.appendleft(kept)
                raise

    def _keep(self, upload: UploadCommittable) -> None:
        files, name = self._store.files, _kept_url(upload.url)
        files.create_exclusive(name, b"")  # False when an earlier savepoint has kept it.
        try:
            self._store.uploads.parts(upload.url, upload.upload_id)
        except MissingFileError:
            files.delete_file(name)  # Its commit came in between, and would not have seen the name.

    def abort(self) -> None:
        """Abort what is being written."""
        uploads, self._ended = self._ended, []
        if self._upload is not None:
            uploads.append(self._upload)
            self._upload = None
            self._drop_buffered()

        def abort_all() -> None:
            for upload in uploads:
                with suppress(StorageError):  # The next attempt aborts what is left.
                    upload.abort()

        _clean_up(abort_all)

    def close(self) -> None:
        """Stop uploading; abort what dead attempts left since the start."""
        unwanted = [*self._ended, *([] if self._upload is None else [self._upload])]
        while (unsynced := _taken(self._unsynced)) is not None:  # Nobody waits for it any more.
            unwanted.append(unsynced)
        for upload in unwanted:
            upload.cancel()
        self._upload, self._ended = None, []
        self._drop_buffered()
        if self._token is not None:
            _clean_up(self._sweep_at_last)
            self._token = None

    def _sweep_at_last(self) -> None:
        try:
            self._sweep()
        except StorageError:
            logger.warning("uploads of dead attempts are left", exc_info=True)

    def _end_upload(self) -> None:
        if self._upload is None:
            return
        if self._buffered:
            self._add_part(self._upload, last=True)
        self._ended.append(self._upload)
        self._upload = None

    def _add_part(self, upload: Upload, *, last: bool = False) -> None:
        data = b"".join(self._buffered)
        self._drop_buffered()
        upload.add(data, last=last)

    def _drop_buffered(self) -> None:
        self._buffered, self._buffered_bytes = [], 0


class PartObjectCommitter:
    """Makes objects visible by completing their uploads."""

    def __init__(self, context: WriterContext) -> None:
        self._context = context
        self._clock = SystemClock()

    def commit(self, committables: Sequence[bytes]) -> None:
        """Complete each upload; what is complete already is left as it is.

        Raises:
            OutputLostError: an upload is gone that is of this attempt, or kept by a savepoint, or so old
                that the bucket may have aborted it.
            StorageError: some upload could not be completed; all others were.
            StateRestoreError: a committable of another version.
        """
        commit_all(partial(self._commit, upload) for upload in list(map(decode_upload, committables)))

    def _commit(self, upload: UploadCommittable) -> None:
        store = open_object_store(upload.url)
        if not _publish(store.uploads, upload):
            self._missing(store.files, upload)
        kept = _kept_url(upload.url)
        if store.files.exists(kept):  # In a bucket with versions each deletion leaves a trace.
            store.files.delete_file(kept)

    def _missing(self, files: FileSystem, upload: UploadCommittable) -> None:
        """Take in that there is neither the upload nor its object."""
        prefix = split_url(upload.url)[0]
        if token_at(files, prefix, upload.job_id) != upload.token:
            raise StorageError(
                "pre-committed output is missing, and its prefix is not known to be the one written to",
                hint="is it the same bucket and endpoint? if its objects were removed on purpose, put an"
                f" object {marker_name(upload.job_id)} with the text {upload.token} there",
                directory=prefix,
                path=upload.url,
            )
        if files.exists(_kept_url(upload.url)):
            raise OutputLostError(
                "upload that a savepoint refers to is missing",
                hint="its records are lost; has a lifecycle rule of the bucket aborted it? to go on without"
                f" them, remove the object {_kept_url(upload.url)}",
                path=upload.url,
            )
        context = self._context
        if (upload.job_id, upload.attempt) == (context.job_id, context.attempt):
            raise OutputLostError(
                "pre-committed output is missing",
                hint="its records are lost; has somebody aborted the uploads of the bucket?",
                path=upload.url,
            )
        taken = join_url(prefix, taken_name(upload.job_id))
        age_ms = self._clock.wall_ms() - upload.begun_ms
        if age_ms >= ABORTED_AFTER_MS_MIN and not files.exists(taken):
            raise OutputLostError(
                "pre-committed output is missing, and is so old that the bucket may have aborted its upload",
                hint="its records are lost, unless its object was read and removed; if all"
                f" that are missing were, put an object {taken} there",
                path=upload.url,
            )
        logger.warning(
            "output of an earlier attempt is not there any more; it counts as committed, read and removed",
            extra={"path": upload.url},
        )


def _publish(uploads: Uploads, upload: UploadCommittable) -> bool:
    """Make an object visible unless it is; False when there is neither upload nor object."""
    found = uploads.find(upload.url)
    if found is not None and (found.marker, found.size_bytes) != (upload.marker, upload.size_bytes):
        # Looked at first, for stores that would replace it.  Nobody but a stranger can come in between.
        raise StorageError(
            "output cannot be committed", path=upload.url, reason="another object has its name"
        )
    if found is not None:
        return True
    try:
        parts = uploads.parts(upload.url, upload.upload_id)
        if len(parts) != upload.part_count or sum(part.size_bytes for part in parts) != upload.size_bytes:
            raise OutputLostError(
                "pre-committed output is not whole",
                path=upload.url,
                parts=len(parts),
                expected=upload.part_count,
            )
        uploads.complete(upload.url, upload.upload_id, parts)
    except MissingFileError:
        # Completed by a commit of an older attempt that was still under way, or nowhere.
        return uploads.find(upload.url) is not None
    return True


def _clean_up(work: Callable[[], None]) -> None:
    """Have uploads aborted that nobody needs; when the store is slow, that goes on while the slot does.

    It harms nobody, however late it comes: no upload is begun twice under one name, or was in a checkpoint.
    """
    over = threading.Thread(target=work, name="sink-clean-up", daemon=True)
    over.start()
    over.join(CLEAN_UP_SECONDS_MAX)


def _kept_url(url: str) -> str:
    """Return the name that keeps an upload for a savepoint."""
    prefix, name = split_url(url)
    return join_url(prefix, f"{KEPT_PREFIX}{name}{KEPT_SUFFIX}")


def _taken(waiting: "deque[Any]") -> Any:
    """Take the first one out; None when a thread that syncs, or `close`, has taken the last."""
    try:
        return waiting.popleft()
    except IndexError:
        return None
