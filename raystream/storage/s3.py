"""Object stores with the interface of S3.

s3fs finds the credentials, opens the session and keeps the thread of its event loop; the requests are
ours, since a claim must see their answers and a large file must not be held whole.

An object appears when its last byte has arrived, and stays: `write` needs nothing more.  A *claim* is a put
on the condition that there is no such object, with a token of this one call in the object's metadata, so
that its content is what readers expect.  When an answer was lost, the next attempt is told that the name is
taken, perhaps by ourselves: then the token is read back, and it tells two writers of the same content apart.

A large file goes in parts.  Until the last one the upload is unfinished: it is no object, but is kept and
paid for.  It is aborted when anything fails; one whose writer was killed is listed as a file with the prefix
of unfinished ones, and deleted like one, so that the sweep finds it as it does on disks.
"""

import logging
import os
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from raystream.errors import StorageError
from raystream.storage import s3_errors
from raystream.storage.filesystem import Buffer, Data, Entry, MissingFileError, buffers
from raystream.storage.s3_requests import REQUESTS_AT_ONCE, Answer, Requests, together
from raystream.storage.s3_url import place_of, prefix_below, unfinished_name, unfinished_of

logger = logging.getLogger(__name__)

PUT_BYTES_MAX = 16 << 20
"""Largest file that goes in one piece."""

PART_BYTES = 8 << 20
"""Part of a larger one; more where that would make too many."""

PARTS_MAX = 10_000
"""Parts of an upload; a limit of S3."""

PARTS_AT_ONCE = 4
"""Parts of one file that are under way, in either direction: what of a large file is in memory."""

DELETIONS_AT_ONCE = 1_000
"""Objects that one request deletes; a limit of S3."""

CONNECT_SECONDS_MAX = 3.0
"""Time to reach the store, in each attempt."""

SILENCE_SECONDS_MAX = 15.0
"""Time without a byte from the store, in each attempt."""

_TOKEN = "raystream-claim"  # noqa: S105 - the name of a claim's token, no secret


def open_s3(_url: str) -> "S3FileSystem":
    """Return the store of all `s3://` URLs, as the environment describes it."""
    return S3FileSystem(open_requests())


class S3FileSystem:
    """An object store.

    Args:
        requests: sends them to it.
    """

    parallel = True

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    def read(self, url: str) -> bytes:
        with explained("read file", url):
            return self._requests.wait(self._read(place_of(url)))

    def read_range(self, url: str, offset: int, length: int) -> bytes:
        if length == 0:
            return b""
        with explained("read file", url):
            return self._requests.wait(self._read_range(place_of(url), offset, length))

    def write(self, url: str, data: Data) -> None:
        pieces = buffers(data)
        size_bytes = sum(memoryview(piece).nbytes for piece in pieces)
        with explained("write file", url):
            if size_bytes > PUT_BYTES_MAX:
                self._upload(place_of(url), pieces, size_bytes)
            else:
                self._requests.wait(self._requests.send("put_object", **place_of(url), Body=b"".join(pieces)))

    def link(self, url: str, source: Path) -> bool:
        return False

    def create_exclusive(self, url: str, data: Data) -> bool:
        token = os.urandom(16).hex()
        claim = {**place_of(url), "IfNoneMatch": "*", "Metadata": {_TOKEN: token}}
        with explained("create file", url):
            try:
                self._requests.wait(self._requests.send("put_object", **claim, Body=b"".join(buffers(data))))
            except ClientError as error:
                if not s3_errors.name_is_taken(error):
                    raise
                # Also when the request was sent once: what is in between may have repeated it.
                return self._requests.wait(self._token_of(url)) == token
            return True

    def list_dir(self, url: str) -> list[Entry]:
        with explained("list directory", url):
            return self._requests.wait(self._list_dir(place_of(url)))

    def exists(self, url: str) -> bool:
        with explained("look up file", url):
            return self._requests.wait(self._exists(place_of(url)))

    def delete_file(self, url: str) -> None:
        place = place_of(url)
        directory, _, name = place["Key"].rpartition("/")
        with explained("delete file", url):
            if unfinished := unfinished_of(name):
                key = f"{directory}/{unfinished[0]}".lstrip("/")
                self._requests.wait(self._abort({**place, "Key": key}, unfinished[1]))
            else:
                with _no_matter_when_missing():
                    self._requests.wait(self._requests.send("delete_object", **place))

    def delete_dir(self, url: str) -> None:
        with explained("delete directory", url):
            self._requests.wait(self._delete_dir(place_of(url)))

    # ---- reading ---------------------------------------------------------------

    async def _read(self, place: dict[str, str]) -> bytes:
        first = await self._requests.fetch(place, 0, PART_BYTES)
        if first.total_bytes <= len(first.data):
            return first.data
        rest = await self._read_range(place, len(first.data), first.total_bytes - len(first.data), first.tag)
        return first.data + rest

    async def _read_range(self, place: dict[str, str], offset: int, length: int, tag: str = "") -> bytes:
        async def fetch(at: int) -> bytes:
            size_bytes = min(PART_BYTES, offset + length - at)
            return (await self._requests.fetch(place, at, size_bytes, tag)).data

        offsets = range(offset, offset + length, PART_BYTES)
        return b"".join(await together(fetch, offsets, at_once=PARTS_AT_ONCE))

    # ---- writing ---------------------------------------------------------------

    def _upload(self, place: dict[str, str], pieces: Sequence[Buffer], size_bytes: int) -> None:
        part_bytes = max(PART_BYTES, -(-size_bytes // PARTS_MAX))
        begun = self._requests.wait(self._requests.send("create_multipart_upload", **place))
        upload = begun["UploadId"]
        sent: list[Future[Answer]] = []
        try:
            for number, body in enumerate(_parts(pieces, part_bytes), start=1):
                if len(sent) >= PARTS_AT_ONCE:
                    sent[-PARTS_AT_ONCE].result()
                part = {**place, "UploadId": upload, "PartNumber": number, "Body": body}
                sent.append(self._requests.submit(self._requests.send("upload_part", **part)))
            parts = [
                {"PartNumber": number, "ETag": future.result()["ETag"]}
                for number, future in enumerate(sent, start=1)
            ]
            self._requests.wait(self._complete(place, upload, parts, size_bytes))
        except BaseException:  # Also what the data itself raises, when nobody wants it any more.
            for future in sent:
                future.cancel()
            wait(sent)
            with suppress(*s3_errors.ERRORS):  # Left to the sweep; the caller's own error matters.
                self._requests.wait(self._abort(place, upload))
            raise
        if begun["ResponseMetadata"]["RetryAttempts"]:
            # An attempt whose answer was lost may have begun an upload that we know nothing of.
            with suppress(*s3_errors.ERRORS):
                self._requests.wait(self._abort_all(place["Bucket"], place["Key"], exactly=True))

    async def _token_of(self, url: str) -> str | None:
        try:
            found = await self._requests.send("head_object", **place_of(url))
        except ClientError as error:
            if not s3_errors.file_is_missing(error):
                raise
            cause = "a file of this name was deleted meanwhile"
            raise StorageError("could not create file", path=url, cause=cause) from error
        token: str | None = found.get("Metadata", {}).get(_TOKEN)
        return token

    async def _complete(
        self, place: dict[str, str], upload: str, parts: list[dict[str, Any]], size_bytes: int
    ) -> None:
        try:
            await self._requests.send(
                "complete_multipart_upload", **place, UploadId=upload, MultipartUpload={"Parts": parts}
            )
        except ClientError as error:
            if not s3_errors.upload_is_gone(error):
                raise
            # An attempt whose answer was lost has completed it, unless somebody has aborted it.
            try:
                found = await self._requests.send("head_object", **place)
            except ClientError:
                raise error from None
            if found["ContentLength"] != size_bytes:
                raise

    async def _abort(self, place: dict[str, str], upload: str) -> None:
        try:
            await self._requests.send("abort_multipart_upload", **place, UploadId=upload)
        except ClientError as error:
            if not s3_errors.upload_is_gone(error):
                raise

    # ---- directories -----------------------------------------------------------

    async def _list_dir(self, place: dict[str, str]) -> list[Entry]:
        prefix = prefix_below(place["Key"])
        found: dict[str, Entry] = {}
        async for page in self._pages(place["Bucket"], prefix, Delimiter="/"):
            for item in page.get("Contents", []):
                if name := item["Key"].removeprefix(prefix):  # Not the mark that some tools leave.
                    found[name] = Entry(name=name, directory=False, size_bytes=item["Size"])
            for item in page.get("CommonPrefixes", []):
                name = item["Prefix"].removeprefix(prefix).rstrip("/")
                found[name + "/"] = Entry(name=name, directory=True, size_bytes=0)
        for key, upload in await self._unfinished(place["Bucket"], prefix):
            name, slash, _ = key.removeprefix(prefix).partition("/")
            if slash:
                found[name + "/"] = Entry(name=name, directory=True, size_bytes=0)
            else:
                name = unfinished_name(name, upload)
                found[name] = Entry(name=name, directory=False, size_bytes=0)
        return sorted(found.values(), key=lambda entry: entry.name)

    async def _exists(self, place: dict[str, str]) -> bool:
        if place["Key"]:
            try:
                await self._requests.send("head_object", **place)
            except ClientError as error:
                if not s3_errors.file_is_missing(error):
                    raise
            else:
                return True
        below = {"Bucket": place["Bucket"], "Prefix": prefix_below(place["Key"]), "MaxKeys": 1}
        answer = await self._requests.send("list_objects_v2", **below)
        return bool(answer.get("Contents"))

    async def _delete_dir(self, place: dict[str, str]) -> None:
        bucket, prefix = place["Bucket"], prefix_below(place["Key"])
        async for page in self._pages(bucket, prefix, MaxKeys=DELETIONS_AT_ONCE):
            if keys := [{"Key": item["Key"]} for item in page.get("Contents", [])]:
                await self._delete(bucket, keys)
        await self._abort_all(bucket, prefix)

    async def _delete(self, bucket: str, keys: list[dict[str, str]]) -> None:
        request = {"Objects": keys, "Quiet": True}
        answer = await self._requests.send("delete_objects", Bucket=bucket, Delete=request)
        for error in answer.get("Errors", []):
            refusal = ClientError({"Error": {"Code": error.get("Code", "")}}, "DeleteObjects")
            if not s3_errors.file_is_missing(refusal):
                raise refusal

    async def _pages(self, bucket: str, prefix: str, **how: Any) -> AsyncIterator[Answer]:
        position: dict[str, str] = {}
        while True:
            page = await self._requests.send(
                "list_objects_v2", Bucket=bucket, Prefix=prefix, **how, **position
            )
            yield page
            if not page.get("IsTruncated"):
                return
            position = {"ContinuationToken": page["NextContinuationToken"]}

    async def _unfinished(self, bucket: str, prefix: str) -> list[tuple[str, str]]:
        """Return key and id of the uploads below a prefix that nobody has completed or aborted."""
        found: list[tuple[str, str]] = []
        position: dict[str, str] = {}
        while True:
            try:
                page = await self._requests.send(
                    "list_multipart_uploads", Bucket=bucket, Prefix=prefix, **position
                )
            except ClientError as error:
                if not s3_errors.listing_of_uploads_is_refused(error):
                    raise
                _warn_of_refused_listing(bucket)
                return found
            found += [
                (upload["Key"], upload["UploadId"])
                for upload in page.get("Uploads", [])
                if upload["Key"].startswith(prefix)
            ]
            if not page.get("IsTruncated"):
                return found
            position = {"KeyMarker": page["NextKeyMarker"]}
            if "NextUploadIdMarker" in page:
                position["UploadIdMarker"] = page["NextUploadIdMarker"]

    async def _abort_all(self, bucket: str, prefix: str, *, exactly: bool = False) -> None:
        for key, upload in await self._unfinished(bucket, prefix):
            if not exactly or key == prefix:
                await self._abort({"Bucket": bucket, "Key": key}, upload)


def _parts(pieces: Sequence[Buffer], part_bytes: int) -> Iterator[bytes]:
    """Yield the content of the pieces in parts of this size, the last one smaller."""
    waiting: deque[memoryview] = deque()
    waiting_bytes = 0
    for piece in pieces:
        view = memoryview(piece).cast("B")
        while view:
            taken = view[: part_bytes - waiting_bytes]
            waiting.append(taken)
            waiting_bytes += len(taken)
            view = view[len(taken) :]
            if waiting_bytes == part_bytes:
                yield b"".join(waiting)
                waiting.clear()
                waiting_bytes = 0
    if waiting:
        yield b"".join(waiting)


@cache
def _warn_of_refused_listing(bucket: str) -> None:
    """Say once that uploads of dead writers stay, since nobody can find them."""
    logger.warning(
        "unfinished uploads cannot be listed, so that those of dead writers stay;"
        " allow it, or let a rule of the bucket abort them",
        extra={"bucket": bucket},
    )


@contextmanager
def _no_matter_when_missing() -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        if not s3_errors.file_is_missing(error):
            raise


@contextmanager
def explained(attempted: str, url: str) -> Iterator[None]:
    """Turn what a request raises into a `StorageError` with one line of cause and one of advice."""
    try:
        yield
    except s3_errors.ERRORS as error:
        if s3_errors.file_is_missing(error):
            raise MissingFileError("file does not exist", path=url) from error
        cause, advice = s3_errors.cause_and_advice(error)
        raise StorageError(f"could not {attempted}", path=url, cause=cause, hint=advice) from error


# ---- the session of this process -----------------------------------------------

_opened: dict[tuple[object, ...], Requests] = {}
_opening = threading.Lock()


def open_requests() -> Requests:
    """Return what sends requests to the store that the environment describes; one for the whole process.

    A child process made by fork has no thread for the loop of its parent, and so opens its own.
    """
    settings = sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_"))
    which = (os.getpid(), *settings)
    with _opening:
        if which not in _opened:
            _opened[which] = Requests(_session())
        return _opened[which]


def _session() -> Any:
    import s3fs

    for library in ("aiobotocore", "botocore", "s3fs"):  # They log whole requests, session tokens included.
        if logging.getLogger(library).level == logging.NOTSET:
            logging.getLogger(library).setLevel(logging.WARNING)
    return s3fs.S3FileSystem(
        skip_instance_cache=True,
        use_listings_cache=False,
        config_kwargs={
            "connect_timeout": CONNECT_SECONDS_MAX,
            "read_timeout": SILENCE_SECONDS_MAX,
            "max_pool_connections": REQUESTS_AT_ONCE,
            "retries": {"mode": "standard", "total_max_attempts": 1},
        },
    )


# The lock may be held by another thread at the moment of a fork.
os.register_at_fork(
    before=_opening.acquire, after_in_parent=_opening.release, after_in_child=_opening.release
)
