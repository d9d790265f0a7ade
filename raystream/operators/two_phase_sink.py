"""`TwoPhaseCommitSink`: an exactly-once sink in a few methods, on top of a writer and a committer.

    begin ─▶ write* ─▶ barrier ─▶ pre_commit ─▶ checkpoint complete ─▶ commit
                 └──── attempt given up ──▶ abort        └─ crash ─▶ restored ─▶ commit, again

A transaction is whatever `begin` returns.  At a barrier it is encoded as it is, as a committable of the
sink, and `SinkOperator` does with it what it does with those of every sink: which one is due when, in
which order, and what is state is decided there and in `raystream.protocol.commit`.

Knows the life of a transaction; knows nothing of what is in it.  Source: Flink's TwoPhaseCommitSinkFunction.
"""

import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from raystream.errors import GraphError
from raystream.operators.output_names import OutputNames
from raystream.operators.sink import WriterContext, commit_all
from raystream.operators.transaction_codec import TransactionCodec
from raystream.records.batch import RowBatch

logger = logging.getLogger(__name__)

T = TypeVar("T")
X = TypeVar("X")

NAMES = "txn"
"""How the names of all transactions begin."""


class TwoPhaseCommitSink(ABC, Generic[T, X]):
    """A sink that writes records of type `T` exactly once, in transactions of type `X`.

    A subclass says how to begin, fill, prepare, publish and give up a transaction.  One transaction holds
    what a subtask has written between two checkpoints; a subtask that writes nothing begins none.  It
    becomes visible when the checkpoint that ended it is complete, or, without checkpointing, at the end of
    the input.

    Every subtask has an object of its own, a copy of the one that was given to `sink_to`; connections and
    what else cannot be copied is made in `open`, or in the calls that need it.  Three kinds of calls may
    come at the same time, each from a thread of its own: `pre_commit` and `keep`; `commit`; and all others.

    An exception in any of them fails the attempt or, in `pre_commit`, the checkpoint.

    Example:
        A sink that is only a list, and what a job does with it:

        >>> class Shelf(TwoPhaseCommitSink):
        ...     visible = {}
        ...     def begin(self, name):
        ...         return {"name": name, "values": []}
        ...     def write(self, transaction, values):
        ...         transaction["values"] += values
        ...     def commit(self, transaction):
        ...         self.visible[transaction["name"]] = transaction["values"]
        >>> shelf = Shelf()
        >>> transaction = shelf.begin("a name that no other transaction has")
        >>> shelf.write(transaction, [42, 43])
        >>> shelf.commit(transaction)
        >>> shelf.commit(transaction)
        >>> list(shelf.visible.values())
        [[42, 43]]
    """

    transaction_type: Any = None
    """Type of a transaction, which gives it a codec that evolves as that of keyed state; None: it is
    pickled."""

    transactional: bool = True

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if cls.unfinished is not TwoPhaseCommitSink.unfinished and cls.keep is TwoPhaseCommitSink.keep:
            raise GraphError(
                "sink finds unfinished transactions and keeps none for savepoints",
                hint="define keep(transaction) too, and leave kept transactions out of unfinished()",
                sink=cls.__name__,
            )

    def open(self, context: WriterContext) -> None:
        """Prepare for all other calls; `context` has `job_id`, `uid`, `subtask`, `parallelism`, `attempt`."""

    @abstractmethod
    def begin(self, name: str) -> X:
        """Return a new transaction.

        Args:
            name: a text that no other transaction has, of this job or another one.
        """

    @abstractmethod
    def write(self, transaction: X, values: list[T]) -> None:
        """Add records to the transaction; nobody outside may see them yet, nor need they be durable."""

    def pre_commit(self, transaction: X) -> None:
        """Make durable what was written, so that nothing but a lost store keeps `commit` from succeeding.

        Called once nothing more is written to the transaction, which was encoded before and must not change.
        May block.  When it raises, the checkpoint fails, and the next one calls it again.
        """

    @abstractmethod
    def commit(self, transaction: X) -> None:
        """Make visible what was written; do nothing when it is.  May block.

        It may come again after it has succeeded, in another process, and beside a call of a process that
        was taken for dead.
        """

    def abort(self, transaction: X) -> None:
        """Remove what was written; do nothing when there is nothing.

        Comes for the transaction that is written to when the attempt is given up, and for what `unfinished`
        finds.  Never for one that a checkpoint of this attempt may still commit.
        """

    def unfinished(self) -> Mapping[str, X]:
        """Return, by name, the transactions that can be found and are neither committed nor kept.

        Asked before the first `begin`, when every subtask has committed what it restored, and at the end of
        the attempt.  Those that a dead attempt of this job has left are aborted, and all others left alone.
        A sink that does not define it leaves behind what was written after the last checkpoint before a
        crash.
        """
        return {}

    def keep(self, transaction: X) -> None:
        """Leave the transaction out of `unfinished` until it is committed: a savepoint refers to it.

        The savepoint may be restored long after this job has ended.  May block, and come more than once.
        """

    def close(self) -> None:
        """Free resources; publish nothing, and remove nothing."""

    def open_writer(self, context: WriterContext) -> "TransactionWriter":
        """Return what drives the transactions of one subtask."""
        return TransactionWriter(self, context)

    def open_committer(self, context: WriterContext) -> "TransactionCommitter":
        """Open the sink, and return what commits the transactions of one subtask."""
        self.open(context)
        return TransactionCommitter(self)


class TransactionWriter:
    """Writes the records of one subtask into the transactions of a sink."""

    def __init__(self, sink: TwoPhaseCommitSink[Any, Any], context: WriterContext) -> None:
        self._sink = sink
        self._codec = TransactionCodec(sink.transaction_type)
        self._names = OutputNames(NAMES, context)
        self._open: list[Any] = []  # The transaction that is written to, if there is one.
        self._ended: deque[Any] = deque()  # Filled by the slot's thread, emptied by the one that syncs.
        self._unkept: deque[Any] = deque()
        self._started = False

    def start(self) -> None:
        """Abort what dead attempts have left; whatever was to be committed of them is."""
        self._abort_left_behind()
        self._started = True

    def _abort_left_behind(self) -> None:
        for name, transaction in self._sink.unfinished().items():
            if self._names.left_behind(name):
                self._sink.abort(transaction)

    def write(self, batch: RowBatch) -> None:
        """Add the records to the transaction, which the first ones after a barrier begin."""
        if not batch.values:
            return
        if not self._open:
            self._open.append(self._sink.begin(self._names.draw()))
        self._sink.write(self._open[0], batch.values)

    def prepare_commit(self, checkpoint_id: int) -> list[bytes]:
        """End the transaction; `sync` pre-commits it."""
        ended = [self._codec.encode(transaction) for transaction in self._open]
        self._ended.extend(self._open)
        self._open.clear()
        return ended

    def sync(self) -> None:
        """Pre-commit the transactions that have ended, in order, and keep those of savepoints."""
        _call_for_each(self._sink.pre_commit, self._ended)
        _call_for_each(self._sink.keep, self._unkept)

    def keep(self, committables: Sequence[bytes]) -> None:
        """Have `sync` keep these, behind their pre-commit."""
        self._unkept.extend(map(self._codec.decode, committables))

    def abort(self) -> None:
        """Abort the transaction that is written to."""
        while self._open:
            self._sink.abort(self._open.pop())

    def close(self) -> None:
        """Close the sink, after aborting what dead attempts have left since the start.

        A slot that was taken for dead may have pre-committed something meanwhile.
        """
        try:
            if self._started:
                self._started = False
                self._abort_left_behind()
        except Exception:
            logger.warning("transactions of dead attempts are left", exc_info=True)
        finally:
            self._sink.close()


class TransactionCommitter:
    """Commits the transactions of one subtask."""

    def __init__(self, sink: TwoPhaseCommitSink[Any, Any]) -> None:
        self._sink = sink
        self._codec = TransactionCodec(sink.transaction_type)

    def commit(self, committables: Sequence[bytes]) -> None:
        """Commit each transaction, in order; what fails keeps no other one from being committed.

        Raises:
            StateRestoreError: a transaction cannot be read as the declared type; none is committed.
            Exception: the first that the sink raised.
        """
        transactions = [self._codec.decode(raw) for raw in committables]
        commit_all(partial(self._sink.commit, transaction) for transaction in transactions)


def _call_for_each(call: Any, waiting: "deque[Any]") -> None:
    """Call a function with each item and take it out when that has succeeded."""
    while waiting:
        call(waiting[0])
        waiting.popleft()
