"""One attempt of a job in one slot: its subtasks from deployment to the end.

    CREATED -> RESTORING (blobs are read in a thread) -> OPENING -> READY -> RUNNING

A round of a running attempt does a bounded piece of every kind of work, most downstream
subtasks first, so that data leaves the slot before more comes in.
"""

import contextlib
import logging
import random
from collections.abc import Callable
from enum import Enum, auto
from functools import partial
from typing import Any

from raystream.errors import CheckpointError
from raystream.graph.physical import Vertex
from raystream.handles import SubtaskSnapshot
from raystream.ids import CheckpointId, SlotId
from raystream.operators.operator import Operator
from raystream.records.elements import Barrier
from raystream.runtime import log_place
from raystream.runtime import messages as msg
from raystream.runtime.assembly import Assembly, SlotServices
from raystream.runtime.links import LinkIdentity
from raystream.runtime.portable_error import portable
from raystream.runtime.program import Program
from raystream.runtime.restore import found_states
from raystream.runtime.restored_states import RestoredState
from raystream.runtime.slot_metrics import SlotMetrics
from raystream.runtime.snapshotter import Snapshotter
from raystream.runtime.subtask import Subtask
from raystream.runtime.turns import Turns
from raystream.storage.local_copies import LocalCopies
from raystream.storage.probe import read_probe

logger = logging.getLogger(__name__)

PROGRESS_INTERVAL_MS = 1000.0


class _Phase(Enum):
    CREATED = auto()
    RESTORING = auto()
    OPENING = auto()
    READY = auto()
    RUNNING = auto()


class SlotAttempt:
    """The subtasks of one slot in one attempt; all methods on the slot's thread."""

    def __init__(self, deploy: msg.Deploy, program: Program, services: SlotServices) -> None:
        self._deploy = deploy
        self._config = program.config
        self._program = program
        self._services = services
        self._clock = services.clock
        self._links = services.links
        self._report = services.report
        self._failed = services.failed
        self._phase = _Phase.CREATED
        self._timers: dict[tuple[int, int, int], float] = {}  # By vertex, subtask and position in its chain.
        self._linger_ms = float(self._config.pipeline.buffer_timeout_ms)
        self._flush_at_ms = 0.0
        self._progress_at_ms = 0.0
        self._metrics: SlotMetrics | None = None
        self._commits_asked = False
        self._commits_reported: set[tuple[int, int]] = set()
        self._snapshotter = Snapshotter(
            attempt=deploy.attempt,
            clock=services.clock,
            background=services.uploads,
            files=services.files,
            under_way=services.under_way,
            inline_bytes_max=self._config.checkpointing.inline_threshold_bytes,
            incremental=self._config.checkpointing.incremental,
            rng=random.Random(f"{deploy.job_id}/{deploy.attempt}/{deploy.slot}"),
            acknowledge=self._snapshot_taken,
            failed=self._snapshot_failed,
        )
        self._assembly = Assembly(deploy, program, services, wake=self._wake, set_timer=self._set_timer)
        self.subtasks: list[Subtask] = []
        self._opened: list[Operator] = []
        self._states: tuple[RestoredState, ...] = ()
        self._sources: list[Subtask] = []
        self._turns: Turns | None = None
        self._unaligned = self._config.checkpointing.unaligned

    @property
    def restoring(self) -> bool:
        """True until everything is read that the attempt restores."""
        return self._phase is not _Phase.RUNNING

    # ---- deployment -------------------------------------------------------

    def deploy(self) -> None:
        """Listen for peers, see that the checkpoint directory is shared, then say so."""
        identity = LinkIdentity(
            job_id=self._deploy.job_id,
            attempt=self._deploy.attempt,
            slot=self._deploy.slot,
            secret=self._deploy.secret,
            slot_count=self._program.plan.slot_count,
        )
        address = self._links.listen(identity, self._assembly.wiring.frame_received)
        probe = self._deploy.probe

        def probed(result: Any) -> None:
            if isinstance(result, Exception):
                self._failed(result)
                return
            self._report(
                msg.SlotDeployed(attempt=self._deploy.attempt, slot=self._deploy.slot, address=address)
            )

        if probe:
            served, open_fs = self._deploy.probe_served, self._services.files.open_fs
            read = partial(read_probe, probe, served=served, open_fs=open_fs)
            self._services.uploads.submit(read, probed)
        else:
            probed(None)

    def connect(self, addresses: dict[SlotId, str]) -> None:
        """Read the restored state, then build the subtasks and connect with the peers."""

        def have_read(result: Any) -> None:
            if isinstance(result, Exception):
                self._failed(result)
                return
            for subtask in self._assembly.build(result, snapshotter=self._snapshotter, listener=self):
                self.subtasks.append(subtask)
                if subtask.source is not None:
                    self._sources.append(subtask)
            self._open()
            # Afterwards, since user code takes its time: a peer does not wait long for our first word.
            self._links.connect(addresses, sorted(self._assembly.wiring.peers))

        self._phase = _Phase.RESTORING
        self._services.uploads.submit(self._assembly.read_restored, have_read)

    def _open(self) -> None:
        self._phase = _Phase.OPENING
        for subtask in self.subtasks:
            for operator in subtask.operators:
                self._opened.append(operator)
                log_place.here.at = operator.context.name, str(subtask.index)
                operator.open()
        log_place.here.at = log_place.NOWHERE
        self._states = found_states(
            (operator.context for subtask in self.subtasks for operator in subtask.operators),
            drop=self._config.recovery.allow_non_restored,
        )

    # ---- running ----------------------------------------------------------

    def start(self) -> None:
        """Process records from now on."""
        self._metrics = SlotMetrics(self._deploy, self._program, self._clock, self.subtasks)
        self._turns = Turns(self._clock, self.subtasks, self._metrics.times, bounded=self._unaligned)
        for subtask in self.subtasks:
            for operator in subtask.operators:
                operator.start()
            if subtask.vertex.id in self._deploy.ended:
                subtask.had_ended()
        self._phase = _Phase.RUNNING

    def round(self) -> bool:
        """Do one bounded piece of every kind of work; True when there was any."""
        worked = self._links.poll()
        if self._phase is _Phase.OPENING and self._links.connected and self._all_opened():
            self._phase = _Phase.READY
            self._report(
                msg.SlotReady(attempt=self._deploy.attempt, slot=self._deploy.slot, states=self._states)
            )
            return True
        if self._turns is not None:
            if self._unaligned:  # Sources first: what overtakes goes through the slot in one round.
                for subtask in self.subtasks:
                    subtask.see_to_barriers()
            worked = self._turns.run() or worked
            worked = self._snapshotter.advance() or worked
            worked = self._timed_work(idle=not worked) or worked
        return worked

    def _all_opened(self) -> bool:
        return all(operator.opened for subtask in self.subtasks for operator in subtask.operators)

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
                self._time_reached(*key)
            worked = worked or bool(due)
        if now_ms >= self._progress_at_ms:
            self._progress_at_ms = now_ms + PROGRESS_INTERVAL_MS
            self.report_progress()
        return worked

    def next_deadline_ms(self) -> float | None:
        """Return when `round` next has timed work, in ms of the monotonic clock."""
        if self._phase is not _Phase.RUNNING:
            return None
        barriers = [subtask.next_barrier_ms() for subtask in self.subtasks] if self._unaligned else []
        return min([self._progress_at_ms, *self._timers.values(), *(at for at in barriers if at is not None)])

    def report_progress(self) -> None:
        """Report what the subtasks of this slot have done."""
        if self._metrics is not None:
            self._report(self._metrics.progress())

    def _set_timer(self, vertex: int, index: int, position: int, at_ms: float) -> None:
        key = vertex, index, position
        self._timers[key] = min(at_ms, self._timers.get(key, at_ms))

    def _time_reached(self, vertex: int, index: int, position: int) -> None:
        for subtask in self.subtasks:
            if (subtask.vertex.id, subtask.index) == (vertex, index):
                subtask.time_reached(position)

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
            savepoint_format=command.savepoint_format,
            created_ms=command.created_ms,
            directory=command.directory,
            stop=command.stop,
            full=command.full,
        )
        for subtask in self._sources:
            subtask.trigger(barrier, drain=command.drain)

    def checkpoint_completed(self, command: msg.CheckpointCompleted) -> None:
        """Tell every subtask that a checkpoint is durable."""
        self._commits_asked = self._commits_asked or command.final
        for subtask in self.subtasks:
            subtask.checkpoint_completed(command.checkpoint_id)
        self._tidy_copies(LocalCopies.checkpoint_completed, command.checkpoint_id)
        self.report_commits()

    def checkpoint_aborted(self, command: msg.CheckpointAborted) -> None:
        """Tell every subtask that a checkpoint will never complete."""
        self._snapshotter.abort(command.checkpoint_id)
        for subtask in self.subtasks:
            subtask.checkpoint_aborted(command.checkpoint_id)
        self._tidy_copies(LocalCopies.checkpoint_aborted, command.checkpoint_id)

    def _tidy_copies(
        self, event: Callable[[LocalCopies, CheckpointId], None], checkpoint_id: CheckpointId
    ) -> None:
        """Tell the copies on this node, in a thread, what has become of a checkpoint."""
        copies = self._services.files.copies
        if copies is not None:
            self._services.uploads.submit(partial(event, copies, checkpoint_id), lambda _: None)

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
        """Give the attempt up: remove unpublished output of this attempt and free everything.

        What fails does not keep the rest from being freed; the last error is raised at the end.
        """
        with contextlib.ExitStack() as stack:  # Calls back in reverse order, whatever is raised.
            stack.callback(self._let_go)
            stack.callback(self._assembly.close)
            stack.callback(self._links.close)
            for operator in reversed(self._opened):
                stack.callback(operator.close)
                stack.callback(operator.abort)
            stack.callback(self._snapshotter.close)

    def _let_go(self) -> None:
        """Cut the cycles between the attempt and its parts, so that state is freed now.

        It may be most of the memory of the process, whose collector of cycles is made to run rarely.
        """
        self.subtasks, self._sources, self._opened = [], [], []
        self._metrics = self._turns = None
        del self._assembly, self._snapshotter

    # ---- what subtasks and snapshots say ----------------------------------

    def input_ended(self, subtask: Subtask) -> None:
        """Report the end of a subtask's input."""
        self.report_progress()
        self._report(
            msg.InputEnded(attempt=self._deploy.attempt, vertex=subtask.vertex.id, subtask=subtask.index)
        )

    def snapshot_declined(self, subtask: Subtask, checkpoint_id: CheckpointId, reason: str) -> None:
        """Report that a subtask does not take part in a checkpoint."""
        self._snapshot_failed(checkpoint_id, subtask.vertex, subtask.index, CheckpointError(reason))

    def _snapshot_taken(self, checkpoint_id: CheckpointId, snapshot: SubtaskSnapshot) -> None:
        if self._metrics is not None:
            self._metrics.snapshot_taken(snapshot)
        self._report(
            msg.SnapshotAcked(attempt=self._deploy.attempt, checkpoint_id=checkpoint_id, snapshot=snapshot)
        )

    def _snapshot_failed(
        self, checkpoint_id: CheckpointId, vertex: Vertex, subtask: int, error: Exception
    ) -> None:
        self._report(
            msg.SnapshotDeclined(
                attempt=self._deploy.attempt,
                checkpoint_id=checkpoint_id,
                vertex=vertex.id,
                subtask=subtask,
                error=portable(error, "snapshot failed"),
            )
        )
