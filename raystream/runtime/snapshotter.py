"""The snapshots that a slot is taking: synchronous part, slices between batches, upload.

    take (at the barrier: freeze keyed state, ask operators for theirs)
      -> advance (encode frozen tables in slices, on the loop)
      -> write (in a thread) -> acknowledge

Several snapshots may be under way, of several subtasks and of several checkpoints.
"""

import logging
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from raystream.clock import Clock
from raystream.graph.physical import Vertex
from raystream.handles import (
    Handle,
    KeyedStateHandle,
    OperatorSnapshot,
    OperatorStateHandle,
    SubtaskSnapshot,
)
from raystream.ids import Attempt, CheckpointId, OperatorUid
from raystream.keygroup import groups_of_subtask
from raystream.operators.operator import Background, Operator, OperatorState
from raystream.records.elements import Barrier, SnapshotKind
from raystream.state.backend import KeyedSnapshot
from raystream.state.operator_state import encode_elements
from raystream.storage.blobs import SnapshotFiles
from raystream.storage.layout import data_file

logger = logging.getLogger(__name__)

SLICE_MS = 3.0
"""Longest time that encoding holds the loop at once."""


@dataclass(slots=True)
class _OperatorPart:
    """What one operator contributes, before it is stored."""

    uid: OperatorUid
    states: list[OperatorState]
    keyed: KeyedSnapshot | None


@dataclass(slots=True)
class _Snapshot:
    """One subtask's snapshot on its way."""

    barrier: Barrier
    vertex: Vertex
    subtask: int
    parts: list[_OperatorPart]
    alignment_ms: float
    start_delay_ms: float
    sync_ms: float
    sync_ended_ms: float
    unencoded: deque[KeyedSnapshot] = field(default_factory=deque)
    dropped: bool = False
    """True when nothing is to be written; what was frozen is still put back in slices."""


class Snapshotter:
    """Takes the snapshots of one slot in one attempt.

    Args:
        files: where blobs go.
        inline_bytes_max: blobs up to this size travel inside the acknowledgement.
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
        inline_bytes_max: int,
        rng: random.Random,
        acknowledge: Callable[[CheckpointId, SubtaskSnapshot], None],
        failed: Callable[[CheckpointId, Vertex, int, Exception], None],
    ) -> None:
        self._attempt = attempt
        self._clock = clock
        self._background = background
        self._files = files
        self._inline_bytes_max = inline_bytes_max
        self._rng = rng
        self._acknowledge = acknowledge
        self._failed = failed
        self._encoding: deque[_Snapshot] = deque()
        self.slice_ms_total = 0.0
        self.slice_ms_longest = 0.0

    def take(
        self,
        vertex: Vertex,
        subtask: int,
        operators: Sequence[Operator],
        barrier: Barrier,
        alignment_ms: float,
    ) -> None:
        """Take the synchronous part of a subtask's snapshot; nothing is written yet."""
        started_ms = self._clock.monotonic_ms()
        savepoint = barrier.kind is SnapshotKind.SAVEPOINT
        parts = []
        for node, operator in zip(vertex.operators, operators, strict=True):
            states = operator.snapshot(barrier.checkpoint_id, savepoint=savepoint)
            backend = operator.context.keyed_backend
            keyed = None if backend is None else backend.freeze(barrier.checkpoint_id)
            parts.append(_OperatorPart(node.uid, states, keyed))
        ended_ms = self._clock.monotonic_ms()
        snapshot = _Snapshot(
            barrier,
            vertex,
            subtask,
            parts,
            alignment_ms=alignment_ms,
            start_delay_ms=max(self._clock.wall_ms() - barrier.created_ms - alignment_ms, 0.0),
            sync_ms=ended_ms - started_ms,
            sync_ended_ms=ended_ms,
            unencoded=deque(part.keyed for part in parts if part.keyed is not None),
        )
        if snapshot.unencoded:
            self._encoding.append(snapshot)
        else:
            self._write(snapshot)

    def advance(self) -> bool:
        """Encode for a few milliseconds; True when there was anything to encode."""
        if not self._encoding:
            return False
        started_ms = self._clock.monotonic_ms()
        deadline_ms = started_ms + SLICE_MS
        snapshot = self._encoding[0]
        try:
            while snapshot.unencoded and snapshot.unencoded[0].advance(
                lambda: self._clock.monotonic_ms() >= deadline_ms
            ):
                snapshot.unencoded.popleft()
        except Exception as error:
            if snapshot.dropped:
                snapshot.unencoded.popleft()
            # What was frozen is put back by the next calls, in slices, as after an abort.
            self._give_up(snapshot, error)
        slice_ms = self._clock.monotonic_ms() - started_ms
        self.slice_ms_total += slice_ms
        self.slice_ms_longest = max(self.slice_ms_longest, slice_ms)
        if not snapshot.unencoded:
            self._encoding.popleft()
            if not snapshot.dropped:
                self._write(snapshot)
        return True

    @property
    def encoding(self) -> bool:
        """True when `advance` has something to do."""
        return bool(self._encoding)

    def abort(self, checkpoint_id: CheckpointId) -> None:
        """Drop the snapshots of a checkpoint that are not yet being written."""
        for snapshot in self._encoding:
            if snapshot.barrier.checkpoint_id == checkpoint_id:
                self._drop(snapshot)

    def _write(self, snapshot: _Snapshot) -> None:
        """Store the encoded parts in a thread, then acknowledge."""

        def written(result: tuple[OperatorSnapshot, ...] | Exception) -> None:
            if isinstance(result, Exception):
                self._give_up(snapshot, result)
                return
            self._acknowledge(
                snapshot.barrier.checkpoint_id,
                SubtaskSnapshot(
                    vertex=snapshot.vertex.id,
                    subtask=snapshot.subtask,
                    operators=result,
                    sync_ms=snapshot.sync_ms,
                    async_ms=self._clock.monotonic_ms() - snapshot.sync_ended_ms,
                    alignment_ms=snapshot.alignment_ms,
                    start_delay_ms=snapshot.start_delay_ms,
                ),
            )

        count = sum(len(part.states) + 1 for part in snapshot.parts)
        tokens = [self._rng.randbytes(4).hex() for _ in range(count)]
        self._background.submit(lambda: self._store(snapshot, iter(tokens).__next__), written)

    def _store(self, snapshot: _Snapshot, token: Callable[[], str]) -> tuple[OperatorSnapshot, ...]:
        """Write every blob of a snapshot; runs in a thread and touches nothing else."""

        def store(uid: OperatorUid, kind: str, data: bytes | list[bytes]) -> Handle:
            name = data_file(
                snapshot.barrier.checkpoint_id,
                self._attempt,
                (snapshot.vertex.id, snapshot.subtask),
                uid,
                kind=kind,
                token=token(),
            )
            return self._files.write_blob(
                snapshot.barrier.directory, name, data, inline_bytes_max=self._inline_bytes_max
            )

        vertex = snapshot.vertex
        groups = groups_of_subtask(snapshot.subtask, vertex.max_parallelism, vertex.parallelism)
        stored = []
        for part in snapshot.parts:
            keyed: tuple[KeyedStateHandle, ...] = ()
            if part.keyed is not None:
                data = store(part.uid, "keyed", part.keyed.blob())
                keyed = (KeyedStateHandle(groups=groups, entries=part.keyed.entries, data=data),)
            operator = tuple(
                OperatorStateHandle(
                    name=state.name,
                    mode=state.mode,
                    element_count=len(state.elements),
                    data=store(part.uid, state.name.strip("_"), encode_elements(state.elements)),
                )
                for state in part.states
            )
            stored.append(
                OperatorSnapshot(
                    uid=part.uid,
                    subtask=snapshot.subtask,
                    states=() if part.keyed is None else part.keyed.states,
                    keyed=keyed,
                    operator=operator,
                )
            )
        return tuple(stored)

    def _give_up(self, snapshot: _Snapshot, error: Exception) -> None:
        if snapshot.dropped:
            return
        self._drop(snapshot)
        self._failed(snapshot.barrier.checkpoint_id, snapshot.vertex, snapshot.subtask, error)

    def _drop(self, snapshot: _Snapshot) -> None:
        snapshot.dropped = True
        for keyed in snapshot.unencoded:
            keyed.discard()
