"""Uploads in parts: how an object store makes an object visible whole, and only when it is told to.

    begin ──▶ parts, some of them on their way at a time ──▶ complete: the object is there, at one stroke
                                                        └──▶ abort: nothing ever was

An upload has an id, which the store gives, and outlives the process that began it: whoever knows the
id, or finds it in a listing, may complete or abort it.  Each part but the last has 5 MiB or more.  The
marker with which an upload begins stays with the object, so that its writer knows it again.

Knows keys, parts and the answers of the store; what is uploaded and when it is to be seen is known to
`raystream.connectors.object_sink`.
"""

import asyncio
from collections import deque
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from raystream.errors import StorageError
from raystream.storage import s3_errors
from raystream.storage.filesystem import MissingFileError
from raystream.storage.s3 import explained, open_requests
from raystream.storage.s3_requests import Answer, Requests
from raystream.storage.s3_url import place_of

PARTS_ON_THE_WAY_MAX = 2
"""Of one upload, beside the last one; whoever adds more waits.  They are what it holds in memory."""

_MARKER = "raystream-part"
"""Name of the marker in the metadata of an object."""

_UPLOAD_MARKERS = ("KeyMarker", "UploadIdMarker")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Part:
    """A stored part of an upload."""

    number: int
    """From 1."""
    etag: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class StoredObject:
    """A visible object."""

    size_bytes: int
    marker: str | None
    """Of the upload that it is from; None when it has none."""


@dataclass(frozen=True, slots=True)
class UnfinishedUpload:
    """An upload that was neither completed nor aborted."""

    url: str
    upload_id: str


def open_uploads() -> "Uploads":
    """Return the uploads of all `s3://` URLs, in the store that the environment describes; sends nothing."""
    return Uploads(open_requests())


class Uploads:
    """The uploads of one store.  Calls block, are thread-safe and raise `StorageError`.

    Args:
        requests: sends them to it.
    """

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    def begin(self, url: str, marker: str, *, begun_ms: int) -> "Upload":
        """Begin an upload; does not wait for the store.

        Args:
            url: of the object that it is to become; never used before.
            marker: tells this object from any other one.
            begun_ms: wall time of now, ms since the epoch.
        """
        return Upload(self._requests, url, marker, begun_ms=begun_ms)

    def parts(self, url: str, upload_id: str) -> list[Part]:
        """Return the stored parts of an upload, in order.

        Raises:
            MissingFileError: there is no such upload, any more or yet.
        """
        upload = {**place_of(url), "UploadId": upload_id}
        with _explained("look up upload", url):
            pages = self._requests.wait(_pages(self._requests, "list_parts", upload, ("PartNumberMarker",)))
        return [
            Part(part["PartNumber"], part["ETag"], part["Size"])
            for page in pages
            for part in page.get("Parts", ())
        ]

    def complete(self, url: str, upload_id: str, parts: Sequence[Part]) -> None:
        """Make the object visible.

        Raises:
            MissingFileError: there is no such upload, any more or yet.
        """
        upload = {**place_of(url), "UploadId": upload_id}
        named = [{"PartNumber": part.number, "ETag": part.etag} for part in parts]
        with _explained("complete upload", url):
            self._requests.wait(
                self._requests.send("complete_multipart_upload", **upload, MultipartUpload={"Parts": named})
            )

    def abort(self, url: str, upload_id: str) -> None:
        """Have an upload never become visible; one that is gone already stays gone."""
        upload = {**place_of(url), "UploadId": upload_id}
        with suppress(MissingFileError), _explained("abort upload", url):
            self._requests.wait(self._requests.send("abort_multipart_upload", **upload))

    def unfinished(self, prefix: str) -> list[UnfinishedUpload]:
        """Return the uploads whose URLs begin with a prefix."""
        place = place_of(prefix)
        bucket, start = place["Bucket"], place["Key"]
        below = {"Bucket": bucket, "Prefix": start}
        with _explained("list uploads", prefix):
            pages = self._requests.wait(
                _pages(self._requests, "list_multipart_uploads", below, _UPLOAD_MARKERS)
            )
        return [
            UnfinishedUpload(f"s3://{bucket}/{upload['Key']}", upload["UploadId"])
            for page in pages
            for upload in page.get("Uploads", ())
            if upload["Key"].startswith(start)
        ]

    def find(self, url: str) -> StoredObject | None:
        """Return what is known of a visible object; None when there is none."""
        try:
            with _explained("look up file", url):
                head = self._requests.wait(self._requests.send("head_object", **place_of(url)))
        except MissingFileError:
            return None
        return StoredObject(head["ContentLength"], head.get("Metadata", {}).get(_MARKER))


class Upload:
    """One object on its way.  `add` is called by one thread; when it is done, `wait` may be by another.

    Attributes:
        url: of the object.
        marker: of the object.
        begun_ms: wall time, ms since the epoch.
        part_count: parts that were added.
        size_bytes: their length.
    """

    def __init__(self, requests: Requests, url: str, marker: str, *, begun_ms: int) -> None:
        self.url = url
        self.marker = marker
        self.begun_ms = begun_ms
        self.part_count = 0
        self.size_bytes = 0
        self._requests = requests
        self._begun = self._submit(self._begin())
        self._on_the_way: deque[Future[None]] = deque()

    @property
    def upload_id(self) -> str:
        """What the store calls it; waits until it has said so.

        Raises:
            StorageError: the store refused.
        """
        with _explained("begin upload", self.url):
            return self._begun.result()

    def add(self, data: bytes, *, last: bool = False) -> None:
        """Add a part; waits while too many are on their way, unless it is the last one.

        Raises:
            StorageError: the store refused this part or an earlier one.
        """
        while len(self._on_the_way) >= PARTS_ON_THE_WAY_MAX and not last:
            self._wait_for_one()
        self.part_count += 1
        self.size_bytes += len(data)
        self._on_the_way.append(self._submit(self._store(self.part_count, data)))

    def wait(self) -> None:
        """Return when every part is stored.

        Raises:
            StorageError: the store refused one.
        """
        while self._on_the_way:
            self._wait_for_one()

    def cancel(self) -> None:
        """Give up what is still on its way; whoever waits for it is told."""
        for part in list(self._on_the_way):
            part.cancel()

    def abort(self) -> None:
        """Have nothing of it become visible, ever.

        Raises:
            StorageError: the store refused.
        """
        self.cancel()
        Uploads(self._requests).abort(self.url, self.upload_id)

    def _wait_for_one(self) -> None:
        with _explained("store part of file", self.url):
            self._on_the_way[0].result()
        self._on_the_way.popleft()

    def _submit(self, work: Coroutine[Any, Any, T]) -> "Future[T]":
        return self._requests.submit(work)

    async def _begin(self) -> str:
        place = place_of(self.url)
        begun = await self._requests.send("create_multipart_upload", **place, Metadata={_MARKER: self.marker})
        upload_id = str(begun["UploadId"])
        if begun["ResponseMetadata"]["RetryAttempts"]:
            # An attempt whose answer was lost may have begun one that nobody knows of.
            with suppress(*s3_errors.ERRORS):  # Left to the sweep of a later attempt.
                await self._abort_others(upload_id)
        return upload_id

    async def _abort_others(self, upload_id: str) -> None:
        place = place_of(self.url)
        below = {"Bucket": place["Bucket"], "Prefix": place["Key"]}
        for page in await _pages(self._requests, "list_multipart_uploads", below, _UPLOAD_MARKERS):
            for upload in page.get("Uploads", ()):
                if upload["Key"] == place["Key"] and upload["UploadId"] != upload_id:
                    await self._requests.send("abort_multipart_upload", **place, UploadId=upload["UploadId"])

    async def _store(self, number: int, data: bytes) -> None:
        # Shielded, since giving up a part does not give up the upload.
        upload_id = await asyncio.shield(asyncio.wrap_future(self._begun))
        part = {**place_of(self.url), "UploadId": upload_id, "PartNumber": number}
        await self._requests.send("upload_part", **part, Body=data)


async def _pages(requests: Requests, operation: str, target: Answer, markers: Sequence[str]) -> list[Answer]:
    """Return the pages of a listing; each begins at the markers that the one before it ended with."""
    pages: list[Answer] = []
    position: Answer = {}
    while True:
        page = await requests.send(operation, **target, **position)
        pages.append(page)
        if not page.get("IsTruncated"):
            return pages
        position = {marker: page[f"Next{marker}"] for marker in markers}


@contextmanager
def _explained(attempted: str, url: str) -> Iterator[None]:
    """Say as the store of files does what went wrong; an upload that is gone is a file that is missing."""
    try:
        with explained(attempted, url):
            yield
    except CancelledError as error:
        raise StorageError(f"could not {attempted}", path=url, cause="it was given up") from error
    except StorageError as error:
        if error.__cause__ is not None and s3_errors.upload_is_gone(error.__cause__):
            raise MissingFileError("upload does not exist", path=url) from error.__cause__
        raise
