"""The contract between raystream and a sink: a writer and, for exactly-once, a committer.

A transactional sink writes in two phases.  At a barrier `prepare_commit` ends what was
written since the last one and returns *committables*, opaque bytes that become state of
the sink; `sync` makes what they name durable, in a thread, before the snapshot is
acknowledged.  When the checkpoint is complete they are committed, in a thread; after a
restore they are committed again, so a commit must be idempotent.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from raystream.records.batch import RowBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterContext:
    """What a writer knows of its subtask.

    Attributes:
        job_id: id of the job, for names that no other job uses.
        uid: uid of the sink operator.
        attempt: number of this execution of the job, from 1.
        tell_client: passes text lines to the client that waits for the job; PrintSink uses it.
        deliver: passes bytes to that client, from any thread; what is committed twice comes twice, so
            the bytes carry an id of their own by which the receiver drops repetitions.  CollectSink uses it.
    """

    job_id: str
    uid: str
    subtask: int
    parallelism: int
    attempt: int
    tell_client: Callable[[list[str]], None]
    deliver: Callable[[bytes], None]


class SinkWriter(Protocol):
    """Writes the batches of one subtask; lives on the slot's thread."""

    def start(self) -> None:
        """Called once before the first batch, when *every* subtask has committed what it restored.

        What dead attempts of this job left uncommitted may be removed now.
        """

    def write(self, batch: RowBatch) -> None:
        """Take the records of a batch; nothing of it need be durable before `sync`."""

    def prepare_commit(self, checkpoint_id: int) -> list[bytes]:
        """End everything written since the last call, not visible; return the committables.

        The stream waits for it, so that what takes time belongs into `sync`.  Also called once at the
        end of the input, with the id of the final checkpoint, or 0 when checkpointing is off.
        """

    def sync(self) -> None:
        """Make durable what every earlier `prepare_commit` and `keep` has left to do.

        Blocks; runs in a thread, one call at a time, while the slot's thread goes on writing.  Called
        before each snapshot is acknowledged, and before the commit at the end of the input.  What a
        snapshot that was given up did not sync is named by the next one too.

        Raises:
            StorageError: the snapshot fails, and so must every later one that names what was lost.
        """

    def keep(self, committables: Sequence[bytes]) -> None:
        """Keep what these name until it is committed: a savepoint refers to it, which outlives this job.

        An attempt that restores an older checkpoint may remove any other committable of a dead one.
        Not called for a sink without a committer.
        """

    def abort(self) -> None:
        """Remove what this writer wrote after its last `prepare_commit`; nothing older."""

    def close(self) -> None:
        """Free resources; must publish nothing, and remove nothing that a snapshot may refer to.

        A `sync` may still be under way.
        """


class Committer(Protocol):
    """Publishes committables; `commit` blocks and runs in a thread, one call at a time per subtask.

    A call of an older attempt is waited for in its process, and so is the end of that process, but not
    for ever: one that cannot be reached may commit on beside its successor, which has the same
    committables.  So a commit is safe beside another one of the same, not only after it.
    """

    def commit(self, committables: Sequence[bytes]) -> None:
        """Make them visible, in order; what is already committed is left as it is.

        Raises:
            StorageError: some could not be committed; the call will be repeated with all of them.
        """


class Sink(Protocol):
    """Something that records go to; a small picklable value that holds no open resource."""

    @property
    def transactional(self) -> bool:
        """True when output becomes visible by a commit, which needs a checkpoint or the end of the input."""

    def open_writer(self, context: WriterContext) -> SinkWriter:
        """Return the writer of one subtask."""

    def open_committer(self, context: WriterContext) -> Committer | None:
        """Return the committer of one subtask, or None when the sink is not transactional."""


def commit_all(commits: Iterable[Callable[[], None]]) -> None:
    """Make each of these calls, in order, also when one fails; then raise the first error.

    What one commit cannot publish keeps nothing else from being published, and what is repeated later
    is the whole call.
    """
    failure: Exception | None = None
    for commit in commits:
        try:
            commit()
        except Exception as error:
            failure = failure or error
    if failure is not None:
        raise failure
