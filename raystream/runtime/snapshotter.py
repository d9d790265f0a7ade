"""The snapshots that a slot is taking: synchronous part, slices between batches, upload.

    take (at the barrier: freeze keyed state, ask operators for theirs)
      -> advance (encode frozen tables in slices, on the loop)
      -> wait for the records in flight, where barriers overtake
      -> upload (in a thread, `raystream.runtime.upload`) -> acknowledge

Several snapshots may be under way, of several subtasks and of several checkpoints.  Those of a
checkpoint that is aborted are dropped wherever they are, so that a store that is slower than the
checkpoints' timeout holds no more of them than there are checkpoints pending.
"""

import logging
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from raystream.clock import Clock
from raystream.graph.physical import Vertex
from raystream.handles import OperatorSnapshot, SavepointFormat, SubtaskSnapshot
from raystream.ids import Attempt, CheckpointId
from raystream.operators.operator import Background, Operator
from raystream.records.elements import Barrier, SnapshotKind
from raystream.runtime.in_flight import InFlight
from raystream.runtime.upload import OperatorPart, Upload, UploadsUnderWay, UploadTarget
from raystream.state.backend import KeyedSnapshot
from raystream.state.snapshot_files import SnapshotForm
from raystream.storage.blobs import SnapshotFiles

logger = logging.getLogger(__name__)

SLICE_MS = 3.0
"""Longest time that encoding holds the loop at once."""


@dataclass(slots=True, eq=False)
class _Snapshot:
    """One subtask's snapshot on its way."""

    barrier: Barrier
    vertex: Vertex
    subtask: int
    parts: list[OperatorPart]
    alignment_ms: float
    start_delay_ms: float
    sync_ms: float
    sync_ended_ms: float
    flight: InFlight | None
    ended: bool = False
    unencoded: deque[KeyedSnapshot] = field(default_factory=deque)
    waits: bool = False
    """True while a thread waits until encoding can go on."""
    upload: Upload | None = None
    """Set when everything is encoded."""
    dropped: bool = False
    """True when nothing is to be written; what was frozen is still put back in slices."""


class Snapshotter:
    """Takes the snapshots of one slot in one attempt.

    Args:
        files: where blobs go.
        under_way: what the slot is writing, of this attempt and of older ones.
        inline_bytes_max: blobs up to this size travel inside the acknowledgement.
        incremental: checkpoints may refer to files of older ones; savepoints never do.
        acknowledge: called on the loop with each snapshot that is durable.
        failed: called on the loop with the checkpoint id, vertex, subtask and cause of each that is not.
    """

    def __init__(
        self,
        *,
        attempt: Attempt,
        clock: Clock,
        background: Background,
        files: SnapshotFiles,
        under_way: UploadsUnderWay,
        inline_bytes_max: int,
        incremental: bool,
        rng: random.Random,
        acknowledge: Callable[[CheckpointId, SubtaskSnapshot], None],
        failed: Callable[[CheckpointId, Vertex, int, Exception], None],
    ) -> None:
        self._attempt = attempt
        self._clock = clock
        self._background = background
        self._files = files
        self._under_way = under_way
        self._inline_bytes_max = inline_bytes_max
        self._incremental = incremental
        self._rng = rng
        self._acknowledge = acknowledge
        self._failed = failed
        self._encoding: deque[_Snapshot] = deque()
        self._in_flight: list[_Snapshot] = []  # Encoded, but for records in flight that are still missing.
        self._uploading: list[_Snapshot] = []  # Submitted; of dropped ones only the mark is left.
        self.slice_ms_total = 0.0
        self.slice_ms_longest = 0.0

    def take(
        self,
        vertex: Vertex,
        subtask: int,
        operators: Sequence[Operator],
        barrier: Barrier,
        *,
        alignment_ms: float,
        flight: InFlight | None = None,
        ended: bool = False,
    ) -> None:
        """Take the synchronous part of a subtask's snapshot; nothing is written yet.

        Args:
            vertex: of the subtask.
            subtask: its index.
            operators: its chain.
            barrier: what the snapshot is for.
            alignment_ms: from the first barrier to the last.
            flight: the records in flight that belong to it; may still be open.
            ended: all its input was processed.
        """
        started_ms, wall_ms = self._clock.monotonic_ms(), self._clock.wall_ms()
        savepoint = barrier.kind is SnapshotKind.SAVEPOINT
        form = self._form(barrier)
        parts = []
        for node, operator in zip(vertex.operators, operators, strict=True):
            states = operator.snapshot(barrier.checkpoint_id, savepoint=savepoint)
            backend = operator.context.keyed_backend
            keyed = None if backend is None else backend.freeze(barrier.checkpoint_id, form=form)
            parts.append(OperatorPart(node.uid, states, keyed, operator.sync))
        ended_ms = self._clock.monotonic_ms()
        snapshot = _Snapshot(
            barrier,
            vertex,
            subtask,
            parts,
            alignment_ms=alignment_ms,
            start_delay_ms=max(wall_ms - barrier.created_ms - alignment_ms, 0.0),
            sync_ms=ended_ms - started_ms,
            sync_ended_ms=ended_ms,
            flight=flight,
            ended=ended,
            unencoded=deque(part.keyed for part in parts if part.keyed is not None),
        )
        self._under_way.begun(barrier.checkpoint_id)
        if snapshot.unencoded:
            self._encoding.append(snapshot)
        else:
            self._write(snapshot)

    def advance(self) -> bool:
        """Encode for a few milliseconds; True when anything could be encoded.

        Of the subtasks that can make progress, the one with the oldest snapshot does.  When none can, the
        loop is woken as soon as one can again.
        """
        if not self._encoding:
            return False
        started_ms = self._clock.monotonic_ms()
        deadline_ms = started_ms + SLICE_MS
        worked, held = False, set[tuple[int, int]]()
        for snapshot in list(self._encoding):
            subtask = int(snapshot.vertex.id), snapshot.subtask
            if subtask not in held:
                worked = self._encode(snapshot, deadline_ms)
                if worked:
                    break
                held.add(subtask)
        slice_ms = self._clock.monotonic_ms() - started_ms
        self.slice_ms_total += slice_ms
        self.slice_ms_longest = max(self.slice_ms_longest, slice_ms)
        return worked

    def _form(self, barrier: Barrier) -> SnapshotForm:
        if barrier.kind is SnapshotKind.SAVEPOINT:
            native = barrier.savepoint_format is SavepointFormat.NATIVE
            return SnapshotForm.NATIVE if native else SnapshotForm.FULL
        # Shared files are beside the checkpoint's directory; with `jobmanager` storage there is none.
        incremental = self._incremental and bool(barrier.directory)
        if not incremental:
            return SnapshotForm.FULL
        return SnapshotForm.ANEW if barrier.full else SnapshotForm.INCREMENTAL

    def _encode(self, snapshot: _Snapshot, deadline_ms: float) -> bool:
        """Encode a snapshot until a time; False when it has to wait before that."""
        late = False

        def out_of_time() -> bool:
            nonlocal late
            late = self._clock.monotonic_ms() >= deadline_ms
            return late

        try:
            while snapshot.unencoded and snapshot.unencoded[0].advance(out_of_time):
                snapshot.unencoded.popleft()
        except Exception as error:
            if snapshot.dropped:
                snapshot.unencoded.popleft()
            # What was frozen is put back by the next calls, in slices, as after an abort.
            self._give_up(snapshot, error)
            late = True
        if not snapshot.unencoded:
            self._encoding.remove(snapshot)
            if not snapshot.dropped:
                self._write(snapshot)
        elif not late:
            self._await(snapshot)
            return False
        return True

    def _await(self, snapshot: _Snapshot) -> None:
        """Have a thread wait until a snapshot can go on; that its outcome comes as mail wakes the loop."""
        if snapshot.waits:
            return
        snapshot.waits = True

        def over(_: object) -> None:
            snapshot.waits = False

        self._background.submit(snapshot.unencoded[0].wait, over)

    @property
    def encoding(self) -> bool:
        """True when `advance` has something to do."""
        return bool(self._encoding)

    @property
    def uploads_pending(self) -> int:
        """How many snapshots are encoded, wanted and not stored yet."""
        return sum(not snapshot.dropped for snapshot in self._uploading)

    def abort(self, checkpoint_id: CheckpointId) -> None:
        """Drop the snapshots of a checkpoint, and what is written of them already."""
        for snapshot in [*self._encoding, *self._in_flight, *self._uploading]:
            if snapshot.barrier.checkpoint_id == checkpoint_id:
                self._drop(snapshot)

    def close(self) -> None:
        """Drop everything: the attempt is over."""
        for snapshot in [*self._encoding, *self._in_flight, *self._uploading]:
            self._drop(snapshot)

    def _write(self, snapshot: _Snapshot) -> None:
        """Store the encoded parts in a thread, then acknowledge; wait for what is still in flight."""
        flight = snapshot.flight
        if flight is not None and flight.open:
            self._in_flight.append(snapshot)
            flight.when_closed = partial(self._flight_closed, snapshot)
            return
        if flight is not None:
            snapshot.flight = None
            snapshot.parts = [replace(part, channels=flight.stored_by(part.uid)) for part in snapshot.parts]
        tokens = [self._rng.randbytes(4).hex() for part in snapshot.parts for _ in range(part.blob_count)]
        upload = snapshot.upload = Upload(
            UploadTarget(
                files=self._files,
                under_way=self._under_way,
                inline_bytes_max=self._inline_bytes_max,
                attempt=self._attempt,
                barrier=snapshot.barrier,
                vertex=snapshot.vertex,
                subtask=snapshot.subtask,
            ),
            snapshot.parts,
            tokens,
        )
        snapshot.parts = []

        def written(result: tuple[OperatorSnapshot, ...] | Exception) -> None:
            self._uploading.remove(snapshot)
            if isinstance(result, Exception):
                self._give_up(snapshot, result)
            elif snapshot.dropped:  # Between its last look at the mark and now.
                self._background.submit(upload.discard, _discarded)
            else:
                self._acknowledge(snapshot.barrier.checkpoint_id, self._stored(snapshot, result))

        self._uploading.append(snapshot)
        self._background.submit(upload.run, written)

    def _flight_closed(self, snapshot: _Snapshot) -> None:
        if not snapshot.dropped:
            self._in_flight.remove(snapshot)
            self._write(snapshot)

    def _stored(self, snapshot: _Snapshot, operators: tuple[OperatorSnapshot, ...]) -> SubtaskSnapshot:
        return SubtaskSnapshot(
            vertex=snapshot.vertex.id,
            subtask=snapshot.subtask,
            operators=operators,
            sync_ms=snapshot.sync_ms,
            async_ms=self._clock.monotonic_ms() - snapshot.sync_ended_ms,
            alignment_ms=snapshot.alignment_ms,
            start_delay_ms=snapshot.start_delay_ms,
            ended=snapshot.ended,
            writing_from=self._under_way.oldest,
        )

    def _give_up(self, snapshot: _Snapshot, error: Exception) -> None:
        if snapshot.dropped:
            return
        self._drop(snapshot)
        self._failed(snapshot.barrier.checkpoint_id, snapshot.vertex, snapshot.subtask, error)

    def _drop(self, snapshot: _Snapshot) -> None:
        if snapshot.dropped:
            return
        snapshot.dropped = True
        snapshot.parts, snapshot.flight = [], None
        if snapshot in self._in_flight:
            self._in_flight.remove(snapshot)
        for keyed in snapshot.unencoded:
            keyed.discard()
        if snapshot.upload is not None:
            snapshot.upload.drop()
        else:
            self._under_way.ended(snapshot.barrier.checkpoint_id)
        if snapshot in self._uploading:
            logger.info(
                "upload of a snapshot dropped",
                extra={
                    "checkpoint_id": snapshot.barrier.checkpoint_id,
                    "vertex": snapshot.vertex.name,
                    "subtask": snapshot.subtask,
                    "uploads_pending": self.uploads_pending,
                },
            )


def _discarded(_: object) -> None:
    """Nothing follows: what could not be deleted is swept."""
