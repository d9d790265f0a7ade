"""One attempt of a job in one slot: its subtasks from deployment to the end.

    CREATED -> RESTORING (blobs are read in a thread) -> OPENING -> READY -> RUNNING

A round of a running attempt does a bounded piece of every kind of work, most downstream
subtasks first, so that data leaves the slot before more comes in.
"""

import pickle
import random
import socket
from collections.abc import Callable
from enum import Enum, auto
from functools import partial
from typing import Any

import msgspec

from raystream.clock import Clock
from raystream.config.options import JobConfig
from raystream.errors import StateCorruptError
from raystream.graph.physical import OperatorNode, Vertex
from raystream.handles import SubtaskSnapshot
from raystream.ids import CheckpointId, OperatorUid
from raystream.keygroup import groups_of_subtask
from raystream.operators.operator import Background, Operator, OperatorContext
from raystream.operators.process import ProcessOperator
from raystream.operators.source_operator import SourceOperator
from raystream.runtime import messages as msg
from raystream.runtime.deployment import SlotBuilder, make_operators
from raystream.runtime.links import LinkIdentity, Links
from raystream.runtime.program import Program
from raystream.runtime.restore import RestoredOperator, read_operator
from raystream.runtime.snapshotter import Snapshotter
from raystream.runtime.subtask import Subtask
from raystream.records.elements import Barrier
from raystream.state.heap import HeapBackend
from raystream.storage.blobs import SnapshotFiles
from raystream.storage.probe import read_probe

PROGRESS_INTERVAL_MS = 1000.0


class _Phase(Enum):
    CREATED = auto()
    RESTORING = auto()
    OPENING = auto()
    READY = auto()
    RUNNING = auto()


class SlotAttempt:
    """The subtasks of one slot in one attempt; all methods on the slot's thread.

    Args:
        report: sends a report to the coordinator.
        failed: called with an error that occurred outside of a call into this object.
    """

    def __init__(
        self,
        deploy: msg.Deploy,
        program: Program,
        *,
        clock: Clock,
        background: Background,
        links: Links,
        files: SnapshotFiles,
        post: Callable[[Callable[[], None]], None],
        report: Callable[[msg.Report], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._deploy = deploy
        self._plan = program.plan
        self._config: JobConfig = program.config
        self._clock = clock
        self._background = background
        self._links = links
        self._files = files
        self._post = post
        self._report = report
        self._failed = failed
        self._phase = _Phase.CREATED
        self._timers: dict[tuple[int, int], float] = {}
        self._linger_ms = float(self._config.pipeline.buffer_timeout_ms)
        self._flush_at_ms = 0.0
        self._progress_at_ms = 0.0
        self._last_progress = (-1, -1)
        self._commits_asked = False
        self._commits_reported: set[tuple[int, int]] = set()
        self._snapshotter = Snapshotter(
            attempt=deploy.attempt,
            clock=clock,
            background=background,
            files=files,
            inline_bytes_max=self._config.checkpointing.inline_threshold_bytes,
            rng=random.Random(f"{deploy.job_id}/{deploy.attempt}/{deploy.slot}"),
            acknowledge=self._snapshot_taken,
            failed=self._snapshot_failed,
        )
        self._builder = SlotBuilder(self._plan, deploy.slot, links, self._config)
        self.subtasks: list[Subtask] = []
        self._sources: list[Subtask] = []
        self._consumers: list[Subtask] = []

    # ---- deployment -------------------------------------------------------

    def deploy(self) -> None:
        """Make the operators, listen for peers and read what the restore needs, then say so."""
        identity = LinkIdentity(
            job_id=self._deploy.job_id,
            attempt=self._deploy.attempt,
            slot=self._deploy.slot,
            secret=self._deploy.secret,
        )
        self._operators = [
            (vertex, index, make_operators(vertex)) for vertex, index in self._builder.subtasks()
        ]
        address = self._links.listen(identity, self._builder.wiring.frame_received)
        probe = self._deploy.probe

        def probed(result: Any) -> None:
            if isinstance(result, Exception):
                self._failed(result)
                return
            self._report(
                msg.SlotDeployed(attempt=self._deploy.attempt, slot=self._deploy.slot, address=address)
            )

        if probe:
            self._background.submit(partial(read_probe, probe, node=socket.gethostname()), probed)
        else:
            probed(None)

    def connect(self, addresses: dict[Any, str]) -> None:
        """Build gates and outputs, connect with the peers and read the restored state."""
        builder = self._builder
        gates = {(v.id, i): builder.gate(v, i) for v, i, _ in self._operators}
        restored_of = self._deploy.restore
        backends = {
            (vertex.id, index): self._backend(vertex, index, operators[0])
            for vertex, index, operators in self._operators
        }

        def read() -> dict[tuple[int, int, OperatorUid], RestoredOperator]:
            return {
                (vertex.id, index, node.uid): read_operator(
                    self._files, restore, backends[vertex.id, index] if position == 0 else None
                )
                for vertex, index, _ in self._operators
                for position, node in enumerate(vertex.operators)
                if (restore := restored_of.get((vertex.id, index), {}).get(node.uid)) is not None
            }

        def have_read(result: Any) -> None:
            if isinstance(result, Exception):
                self._failed(result)
                return
            for vertex, index, operators in self._operators:
                self._add_subtask(vertex, index, operators, gates[vertex.id, index], backends, result)
            builder.attach_local_channels()
            self._links.connect(addresses, sorted(builder.wiring.peers))
            self._open()

        self._phase = _Phase.RESTORING
        self._background.submit(read, have_read)

    def _backend(self, vertex: Vertex, index: int, head: Operator) -> HeapBackend | None:
        if not vertex.keyed or not isinstance(head, ProcessOperator):
            return None
        groups = groups_of_subtask(index, vertex.max_parallelism, vertex.parallelism)
        return HeapBackend(
            groups=groups, max_parallelism=vertex.max_parallelism, cursor=head.cursor,
            operator=vertex.operators[0].name,
        )  # fmt: skip

    def _add_subtask(
        self, vertex: Vertex, index: int, operators: list[Operator], gate: Any, backends: Any, restored: Any
    ) -> None:
        contexts = [
            self._context(
                vertex, index, node, operators[position],
                backends[vertex.id, index] if position == 0 else None,
                restored.get((vertex.id, index, node.uid), RestoredOperator()),
            )
            for position, node in enumerate(vertex.operators)
        ]  # fmt: skip
        outputs = self._builder.wire_chain(vertex, index, operators, contexts)
        subtask = Subtask(
            vertex,
            index,
            operators=operators,
            gate=gate,
            outputs=outputs,
            snapshotter=self._snapshotter,
            listener=self,
            clock=self._clock,
        )
        self.subtasks.append(subtask)
        if subtask.source is not None:
            self._sources.append(subtask)
        else:
            self._consumers.insert(0, subtask)

    def _context(
        self, vertex: Vertex, index: int, node: OperatorNode, operator: Operator, backend: Any,
        restored: RestoredOperator,
    ) -> OperatorContext:  # fmt: skip
        attempt, slot, uid = self._deploy.attempt, self._deploy.slot, node.uid

        def client_output(payload: Any) -> None:
            self._post(
                lambda: self._report(
                    msg.ClientOutput(attempt=attempt, slot=slot, uid=uid, payload=payload)
                )
            )

        return OperatorContext(
            job_id=self._deploy.job_id,
            uid=uid,
            name=node.name,
            subtask=index,
            parallelism=vertex.parallelism,
            max_parallelism=vertex.max_parallelism,
            attempt=attempt,
            clock=self._clock,
            background=self._background,
            restored=restored.operator_state,
            keyed_backend=backend,
            cursor=operator.cursor if isinstance(operator, ProcessOperator) and backend else None,
            request_splits=lambda: self._report(
                msg.SplitsRequested(attempt=attempt, uid=uid, subtask=index)
            ),
            wake=lambda: self._post(partial(self._wake, vertex.id, index)),
            wake_at=partial(self._set_timer, vertex.id, index),
            tell_client=client_output,
            deliver=client_output,
            failed=self._failed,
        )

    def _open(self) -> None:
        self._phase = _Phase.OPENING
        for subtask in self.subtasks:
            for operator in subtask.operators:
                operator.open()
            backend = subtask.operators[0].context.keyed_backend
            if backend is not None:
                backend.check_restored(allow_missing=self._config.recovery.allow_non_restored)

    # ---- running ----------------------------------------------------------

    def start(self) -> None:
        """Process records from now on."""
        for subtask in self.subtasks:
            for operator in subtask.operators:
                operator.start()
        self._phase = _Phase.RUNNING

    def round(self) -> bool:
        """Do one bounded piece of every kind of work; True when there was any."""
        worked = self._links.poll() if self._phase is not _Phase.CREATED else False
        if self._phase is _Phase.OPENING and self._links.connected and self._all_opened():
            self._phase = _Phase.READY
            self._report(msg.SlotReady(attempt=self._deploy.attempt, slot=self._deploy.slot))
            return True
        if self._phase is _Phase.RUNNING:
            worked = self._run_records() or worked
            worked = self._snapshotter.advance() or worked
            worked = self._timed_work(idle=not worked) or worked
        return worked

    def _all_opened(self) -> bool:
        return all(operator.opened for subtask in self.subtasks for operator in subtask.operators)

    def _run_records(self) -> bool:
        ran = False
        for subtask in self._consumers:
            if subtask.can_run:
                subtask.run()
                ran = True
        if ran:
            return True
        for subtask in self._sources:
            if subtask.can_poll and subtask.poll_source():
                ran = True
        return ran

    def _timed_work(self, *, idle: bool) -> bool:
        now_ms = self._clock.monotonic_ms()
        worked = False
        if idle or now_ms >= self._flush_at_ms:
            self._flush_at_ms = now_ms + self._linger_ms
            for subtask in self.subtasks:
                worked = subtask.outputs.flush() or worked
        if self._timers:
            due = [key for key, at_ms in self._timers.items() if at_ms <= now_ms]
            for key in due:
                del self._timers[key]
                self._wake(*key)
            worked = worked or bool(due)
        if now_ms >= self._progress_at_ms:
            self._progress_at_ms = now_ms + PROGRESS_INTERVAL_MS
            self.report_progress()
        return worked

    def next_deadline_ms(self) -> float | None:
        """Return when `round` next has timed work, in ms of the monotonic clock."""
        if self._phase is not _Phase.RUNNING:
            return None
        return min([self._progress_at_ms, *self._timers.values()])

    def report_progress(self) -> None:
        """Report how many records came in and went out, if that has changed."""
        records_in = sum(subtask.records_in for subtask in self._sources)
        records_out = sum(subtask.records_out for subtask in self.subtasks)
        if (records_in, records_out) != self._last_progress:
            self._last_progress = records_in, records_out
            self._report(
                msg.Progress(
                    attempt=self._deploy.attempt,
                    slot=self._deploy.slot,
                    records_in=records_in,
                    records_out=records_out,
                )
            )

    def _set_timer(self, vertex: int, index: int, at_ms: float) -> None:
        self._timers[vertex, index] = min(at_ms, self._timers.get((vertex, index), at_ms))

    def _wake(self, vertex: int, index: int) -> None:
        for subtask in self._sources:
            if (subtask.vertex.id, subtask.index) == (vertex, index):
                subtask.wake()

    # ---- commands ---------------------------------------------------------

    def splits_assigned(self, command: msg.AssignSplits) -> None:
        """Give splits to the source subtask that asked for them."""
        for subtask in self._sources:
            source = subtask.source
            if source is not None and (source.context.uid, subtask.index) == (command.uid, command.subtask):
                source.splits_assigned(command.splits, no_more=command.no_more)
                subtask.wake()

    def trigger(self, command: msg.TriggerCheckpoint) -> None:
        """Emit a barrier from every source subtask of this slot."""
        barrier = Barrier(
            checkpoint_id=command.checkpoint_id,
            kind=command.kind,
            created_ms=command.created_ms,
            directory=command.directory,
            stop=command.stop,
        )
        for subtask in self._sources:
            subtask.trigger(barrier)

    def checkpoint_completed(self, command: msg.CheckpointCompleted) -> None:
        """Tell every subtask that a checkpoint is durable."""
        self._commits_asked = self._commits_asked or command.final
        for subtask in self.subtasks:
            subtask.checkpoint_completed(command.checkpoint_id)
        self.report_commits()

    def checkpoint_aborted(self, command: msg.CheckpointAborted) -> None:
        """Tell every subtask that a checkpoint will never complete."""
        self._snapshotter.abort(command.checkpoint_id)
        for subtask in self.subtasks:
            subtask.checkpoint_aborted(command.checkpoint_id)

    def commit_at_end(self) -> None:
        """Publish everything; all input of the job has ended and checkpointing is off."""
        self._commits_asked = True
        for subtask in self.subtasks:
            for operator in subtask.operators:
                operator.commit_at_end()
        self.report_commits()

    def report_commits(self) -> None:
        """After the last commit of a subtask, say so; called whenever a commit may have ended."""
        if not self._commits_asked:
            return
        for subtask in self.subtasks:
            key = (int(subtask.vertex.id), subtask.index)
            if subtask.committed and key not in self._commits_reported:
                self._commits_reported.add(key)
                self.report_progress()
                self._report(
                    msg.CommitsDone(
                        attempt=self._deploy.attempt, vertex=subtask.vertex.id, subtask=subtask.index
                    )
                )

    def close(self) -> None:
        """Give the attempt up: remove unpublished output of this attempt and free everything."""
        for subtask in self.subtasks:
            for operator in subtask.operators:
                operator.abort()
                operator.close()
        self._links.close()

    # ---- what subtasks and snapshots say ----------------------------------

    def input_ended(self, subtask: Subtask) -> None:
        """Report the end of a subtask's input."""
        self.report_progress()
        self._report(
            msg.InputEnded(attempt=self._deploy.attempt, vertex=subtask.vertex.id, subtask=subtask.index)
        )

    def snapshot_declined(self, subtask: Subtask, checkpoint_id: CheckpointId, reason: str) -> None:
        """Report that a subtask does not take part in a checkpoint."""
        self._decline(checkpoint_id, subtask.vertex, subtask.index, reason)

    def _snapshot_taken(self, checkpoint_id: CheckpointId, snapshot: SubtaskSnapshot) -> None:
        self._report(
            msg.SnapshotAcked(
                attempt=self._deploy.attempt, checkpoint_id=checkpoint_id, snapshot=snapshot
            )
        )

    def _snapshot_failed(
        self, checkpoint_id: CheckpointId, vertex: Vertex, subtask: int, error: Exception
    ) -> None:
        self._decline(checkpoint_id, vertex, subtask, str(error))

    def _decline(self, checkpoint_id: CheckpointId, vertex: Vertex, subtask: int, reason: str) -> None:
        self._report(
            msg.SnapshotDeclined(
                attempt=self._deploy.attempt,
                checkpoint_id=checkpoint_id,
                vertex=vertex.id,
                subtask=subtask,
                reason=reason,
            )
        )
