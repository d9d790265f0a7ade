"""Requests to an object store: each is sent until it is answered or its time is over.

Knows operations of S3 by their names; knows nothing of files.  The requests run on the event loop that
the session has a thread for, and any number of threads may wait for them.

Sending again happens here and nowhere else; the client underneath is told not to.  Three layers that each
ask five times would keep a job waiting for minutes, and none of them could tell a caller how long.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from botocore.exceptions import ClientError, IncompleteReadError

from raystream.storage.s3_errors import may_succeed_later, range_is_behind_the_end

A = TypeVar("A")
T = TypeVar("T")
Answer = dict[str, Any]

REQUESTS_AT_ONCE = 32
"""Requests of one process that are under way; further ones wait."""

ATTEMPTS_MAX = 24
"""How often a request is sent; its time is over before that, unless each attempt is refused at once."""

PAUSE_SECONDS_MIN, PAUSE_SECONDS_MAX = 0.1, 5.0
"""Time before a request is sent again; doubles from the first to the second, up to half of it by chance."""

REQUEST_SECONDS_MAX = 60.0
"""Time that a request may take in all, with every attempt: an outage that is shorter goes unnoticed."""

FIRST_ANSWER_SECONDS_MAX = 6.0
"""The same while the store has not answered anything yet: more likely its address is wrong."""

BYTES_PER_SECOND_MIN = 1 << 20
"""A request with a body gets a second more for this much of it."""


class Session(Protocol):
    """What gives the client of a store, and the loop that it belongs to."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop, which runs in a thread of its own."""

    async def set_session(self) -> Any:
        """Return the client; the first call makes it."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an object."""

    data: bytes
    total_bytes: int
    """Length of the whole object."""
    tag: str
    """Changes with the object's content."""


class Requests:
    """Sends requests to one store; thread-safe."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._under_way = asyncio.Semaphore(REQUESTS_AT_ONCE)
        self._answered = False

    def submit(self, work: Coroutine[Any, Any, T]) -> "Future[T]":
        """Begin what is made of requests; from any thread but that of the loop."""
        return asyncio.run_coroutine_threadsafe(work, self._session.loop)

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Do what is made of requests, and return its result."""
        future = self.submit(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # The caller was interrupted: nobody wants the result any more.
            raise

    async def send(self, operation: str, **arguments: Any) -> Answer:
        """Return the answer to a request.

        The answer's `ResponseMetadata.RetryAttempts` says how often it was sent before.

        Raises:
            s3_errors.ERRORS: the store refused, or did not answer in time.
        """

        async def attempt() -> Answer:
            client = await self._session.set_session()
            answer: Answer = await getattr(client, operation)(**arguments)
            return answer

        answer, repeated = await self._until_answered(attempt, len(arguments.get("Body", b"")))
        answer["ResponseMetadata"]["RetryAttempts"] = repeated
        return answer

    async def fetch(self, place: dict[str, str], offset: int, length: int, tag: str = "") -> Piece:
        """Return bytes `[offset, offset + length)` of an object, fewer where it ends before.

        Args:
            place: bucket and key.
            offset: 0-based.
            length: at least 1.
            tag: the object must still be the one that had it.

        Raises:
            s3_errors.ERRORS: the store refused, or did not answer in time.
        """
        condition = {"IfMatch": tag} if tag else {}

        async def attempt() -> Piece:
            client = await self._session.set_session()
            wanted = f"bytes={offset}-{offset + length - 1}"
            try:
                answer = await client.get_object(**place, Range=wanted, **condition)
            except Exception as error:
                if range_is_behind_the_end(error):
                    return Piece(b"", 0, "")
                raise
            async with answer["Body"] as body:
                data: bytes = await body.read()
            if len(data) != answer["ContentLength"]:
                raise IncompleteReadError(actual_bytes=len(data), expected_bytes=answer["ContentLength"])
            if "ContentRange" not in answer:  # The store has ignored the range.
                return Piece(data[offset : offset + length], len(data), answer["ETag"])
            return Piece(data, int(answer["ContentRange"].rpartition("/")[2]), answer["ETag"])

        piece, _ = await self._until_answered(attempt, length)
        return piece

    async def _until_answered(self, attempt: Callable[[], Awaitable[T]], body_bytes: int) -> tuple[T, int]:
        """Return the result of the first attempt that is answered, and how many were made before."""
        async with self._under_way:
            seconds = REQUEST_SECONDS_MAX if self._answered else FIRST_ANSWER_SECONDS_MAX
            seconds += body_bytes / BYTES_PER_SECOND_MIN
            last: BaseException = TimeoutError()
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    for number in range(ATTEMPTS_MAX):
                        try:
                            result = await attempt()
                        except Exception as error:
                            if not may_succeed_later(error):
                                self._answered |= isinstance(error, ClientError)
                                raise
                            last = error
                            await _pause(number)
                        else:
                            self._answered = True
                            return result, number
            raise last


async def together(
    work: Callable[[A], Coroutine[Any, Any, T]], arguments: Iterable[A], *, at_once: int
) -> list[T]:
    """Return the work's result for each argument, so many under way at a time; the first error ends all."""
    places = asyncio.Semaphore(at_once)

    async def limited(argument: A) -> T:
        async with places:
            return await work(argument)

    tasks = [asyncio.ensure_future(limited(argument)) for argument in arguments]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def _pause(number: int) -> None:
    longest = min(PAUSE_SECONDS_MIN * 2.0**number, PAUSE_SECONDS_MAX)
    nothing = asyncio.get_running_loop().create_future()
    await asyncio.wait([nothing], timeout=random.uniform(longest / 2, longest))
