"""Collecting the records of a job at its client, exactly once.

The writer keeps records until a checkpoint and makes a payload of them; the commit
passes the payload to the client.  A payload may be delivered again after a restore, so
each has an id of its own, and the receiver drops what it has seen.
"""

import pickle
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from raystream.connectors.versioned import decode, encode
from raystream.errors import GraphError
from raystream.operators.sink import Committer, SinkWriter, WriterContext
from raystream.records.batch import RowBatch

FORMAT_VERSION = 1
PICKLE_PROTOCOL = 5


class CollectedPayload(msgspec.Struct, frozen=True, array_like=True):
    """Records of one subtask between two checkpoints."""

    id: str
    pickled: bytes
    """The list of records."""


class CollectSink:
    """Passes all records to the client that waits for the job, when their checkpoint is complete."""

    transactional = True

    def open_writer(self, context: WriterContext) -> SinkWriter:
        """Return what keeps the records of one subtask."""
        return CollectWriter(context)

    def open_committer(self, context: WriterContext) -> Committer:
        """Return what passes them to the client."""
        return CollectCommitter(context.deliver)


class CollectReceiver:
    """Takes the payloads of a job at its client, in any order and any number of times."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def receive(self, payload: bytes) -> list[Any]:
        """Return the records of a payload; none when it was received before.

        Raises:
            StateRestoreError: the payload is of another format.
        """
        collected = decode(payload, FORMAT_VERSION, CollectedPayload, "collected payload")
        if collected.id in self._seen:
            return []
        self._seen.add(collected.id)
        values: list[Any] = pickle.loads(collected.pickled)
        return values


class CollectWriter:
    """Keeps the records of one subtask until the next checkpoint."""

    def __init__(self, context: WriterContext) -> None:
        self._id = f"{context.job_id}/{context.uid}/{context.subtask}/{context.attempt}"
        self._counter = 0
        self._values: list[Any] = []

    def start(self) -> None:
        """Do nothing: a dead attempt leaves nothing behind."""

    def write(self, batch: RowBatch) -> None:
        """Keep the records."""
        self._values += batch.values

    def prepare_commit(self, checkpoint_id: int) -> list[bytes]:
        """Return what was kept as one payload.

        Raises:
            GraphError: a record cannot be pickled.
        """
        if not self._values:
            return []
        try:
            pickled = pickle.dumps(self._values, protocol=PICKLE_PROTOCOL)
        except Exception as error:
            raise GraphError(
                "collected record cannot be sent to the client",
                hint="map records to values that can be pickled",
                reason=str(error),
            ) from error
        payload = CollectedPayload(f"{self._id}/{self._counter}", pickled)
        self._counter += 1
        self._values = []
        return [encode(FORMAT_VERSION, payload)]

    def sync(self) -> None:
        """Do nothing: a committable holds its values."""

    def keep(self, committables: Sequence[bytes]) -> None:
        """Do nothing: a committable holds its values."""

    def abort(self) -> None:
        """Forget what was kept since the last payload."""
        self._values = []

    def close(self) -> None:
        """Do nothing: there is nothing to free."""


class CollectCommitter:
    """Passes payloads to the client."""

    def __init__(self, deliver: Callable[[bytes], None]) -> None:
        self._deliver = deliver

    def commit(self, committables: Sequence[bytes]) -> None:
        """Deliver each payload; the receiver drops those it has."""
        for payload in committables:
            self._deliver(payload)
