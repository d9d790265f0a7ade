"""Assembles the subtasks of one slot: operators with their contexts, state and channels.

Restored state is read in a thread (`read_restored`) before anything is wired, so that
operators find it when they open.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from raystream.clock import Clock
from raystream.errors import StateError, StateRestoreError
from raystream.graph.physical import OperatorNode, Vertex
from raystream.ids import CheckpointId, OperatorUid, VertexId
from raystream.keygroup import groups_of_subtask
from raystream.operators.emission import copy_of
from raystream.operators.operator import Background, Operator, OperatorContext
from raystream.operators.process import ProcessOperator
from raystream.protocol.alignment import BarrierAligner
from raystream.protocol.tracking import BarrierTracker
from raystream.runtime import messages as msg
from raystream.runtime.deployment import SlotBuilder, Wiring, make_operators
from raystream.runtime.gate import Gate
from raystream.runtime.in_flight import TakenInput
from raystream.runtime.links import Links
from raystream.runtime.overtaking import Overtaking, OvertakingPolicy
from raystream.runtime.program import Program
from raystream.runtime.restore import KeyedOwner, RestoredOperator, read_operator
from raystream.runtime.snapshotter import Snapshotter
from raystream.runtime.subtask import BarrierMachine, Subtask, SubtaskListener
from raystream.runtime.upload import UploadsUnderWay
from raystream.state.open_backend import BackendOpener
from raystream.storage.blobs import SnapshotFiles
from raystream.storage.filesystem import split_url
from raystream.storage.layout import checkpoint_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotServices:
    """What a slot gives to an attempt that runs in it.

    Attributes:
        uploads: writes and reads snapshots.
        under_way: what of them is being written, also of older attempts.
        commits: runs what operators have to wait for.
        post: makes a call on the slot's thread soon, unless the attempt is over; any thread.
        report: sends a report to the coordinator; the slot's thread only.
        failed: reports an error that occurred outside of a call into the attempt; any thread.
        threads: whether state backends merge and link their files in threads of their own.
    """

    clock: Clock
    uploads: Background
    under_way: UploadsUnderWay
    commits: Background
    links: Links
    files: SnapshotFiles
    post: Callable[[Callable[[], None]], None]
    report: Callable[[msg.Report], None]
    failed: Callable[[Exception], None]
    threads: bool = True


@dataclass(slots=True)
class _Draft:
    """A subtask before it is wired."""

    vertex: Vertex
    index: int
    operators: list[Operator]
    keyed: KeyedOwner | None


Restored = dict[tuple[VertexId, int, OperatorUid], RestoredOperator]


class Assembly:
    """Makes the subtasks of one slot in one attempt.

    Args:
        wake: polls a source subtask (vertex, index) again; the slot's thread only.
        set_timer: calls the `time_reached` of an operator (vertex, index, position in its chain) at a time in
            ms of the monotonic clock.
    """

    def __init__(
        self,
        deploy: msg.Deploy,
        program: Program,
        services: SlotServices,
        *,
        wake: Callable[[int, int], None],
        set_timer: Callable[[int, int, int, float], None],
    ) -> None:
        self._deploy = deploy
        self._services = services
        self._copy_records = program.config.pipeline.copy_records
        checkpointing = program.config.checkpointing
        self._mode = checkpointing.mode
        self._policy = None
        if checkpointing.unaligned:
            self._policy = OvertakingPolicy(
                timeout_ms=checkpointing.aligned_timeout_ms,
                copied=copy_of if program.config.pipeline.copy_records else None,
            )
        self._wake = wake
        self._set_timer = set_timer
        self._builder = SlotBuilder(program.plan, deploy.slot, services.links, program.config)
        subtasks = list(self._builder.subtasks())
        self._backends = BackendOpener(
            program.config.backend,
            services.clock,
            keyed_operators=sum(vertex.keyed for vertex, _ in subtasks),
            threads=services.threads,
        )
        self._drafts = [self._draft(vertex, index) for vertex, index in subtasks]
        self._closed = False

    @property
    def wiring(self) -> Wiring:
        """The channels of the slot; complete after `build`."""
        return self._builder.wiring

    def _draft(self, vertex: Vertex, index: int) -> _Draft:
        operators = make_operators(vertex)
        head = operators[0]
        keyed = None
        if vertex.keyed and isinstance(head, ProcessOperator):
            groups = groups_of_subtask(index, vertex.max_parallelism, vertex.parallelism)
            keyed = KeyedOwner(
                backend=self._backends.open(groups, vertex.max_parallelism, head.cursor),
                groups=groups,
                max_parallelism=vertex.max_parallelism,
            )
        return _Draft(vertex, index, operators, keyed)

    def read_restored(self) -> Restored:
        """Read what the deployment restores; blocks, and touches nothing that the loop touches.

        Raises:
            StateCorruptError: a blob is missing or is not what was written.
            StateError: the assembly was closed meanwhile.
            StorageError: the store did not answer.
        """
        files = self._services.files
        checkpoint_id = self._restored_checkpoint()
        if files.copies is not None and checkpoint_id is not None:
            files.copies.attempt_began(checkpoint_id)
        copied_bytes, stored_bytes = files.copied_bytes, files.stored_bytes
        restored: Restored = {}
        for draft in self._drafts:
            of_subtask = self._deploy.restore.get((draft.vertex.id, draft.index), {})
            for position, node in enumerate(draft.vertex.operators):
                restore = of_subtask.get(node.uid)
                if self._closed:
                    raise StateError("attempt ended while it was restored")
                if restore is not None:
                    keyed = draft.keyed if position == 0 else None
                    restored[draft.vertex.id, draft.index, node.uid] = read_operator(files, restore, keyed)
        if restored:
            logger.info(
                "state was read back",
                extra={
                    "slot": self._deploy.slot,
                    "from_local_copies_bytes": files.copied_bytes - copied_bytes,
                    "from_store_bytes": files.stored_bytes - stored_bytes,
                },
            )
        return restored

    def _restored_checkpoint(self) -> CheckpointId | None:
        """Return the checkpoint of this job that the slot restores something of, if there is one."""
        for of_subtask in self._deploy.restore.values():
            for restore in of_subtask.values():
                if restore.own:
                    return checkpoint_of(split_url(restore.directory)[1])
        return None

    def build(
        self, restored: Restored, *, snapshotter: Snapshotter, listener: SubtaskListener
    ) -> list[Subtask]:
        """Return the subtasks, wired and not yet open, sources first; called once."""
        gates = [self._builder.gate(draft.vertex, draft.index) for draft in self._drafts]
        subtasks = []
        for draft, gate in zip(self._drafts, gates, strict=True):
            contexts = [self._context(draft, position, restored) for position in range(len(draft.operators))]
            contexts[0] = replace(contexts[0], select_inputs=gate.select)
            outputs = self._builder.wire_chain(draft.vertex, draft.index, draft.operators, contexts)
            clock, policy = self._services.clock, self._policy
            subtasks.append(
                Subtask(
                    draft.vertex,
                    draft.index,
                    operators=draft.operators,
                    gate=gate,
                    outputs=outputs,
                    snapshotter=snapshotter,
                    listener=listener,
                    clock=clock,
                    machine=self._machine(gate),
                    overtaking=None if policy is None else Overtaking(policy, gate, outputs, clock),
                    in_flight=self._in_flight(draft, restored),
                )
            )
        self._builder.attach_local_channels()
        self._drafts = []  # Their operators know this assembly by their contexts: a cycle around all state.
        return subtasks

    def _machine(self, gate: Gate) -> BarrierMachine | None:
        if not gate.channels:
            return None
        if self._mode == "at-least-once":
            return BarrierTracker(len(gate.channels))
        return BarrierAligner(len(gate.channels), overtaking=gate.channels[0].route is not None)

    def _in_flight(self, draft: _Draft, restored: Restored) -> list[TakenInput]:
        """Return the records in flight of a subtask, in the order in which they are processed.

        Those for the end of the chain come first: what an operator before it makes of its own is newer.

        Raises:
            StateRestoreError: an operator does not have the input any more that they were for.
        """
        in_flight: list[TakenInput] = []
        for position, node in reversed(list(enumerate(draft.vertex.operators))):
            own = restored.get((draft.vertex.id, draft.index, node.uid), RestoredOperator())
            for number, batch in own.in_flight:
                if number >= len(draft.operators[position].inputs):
                    raise StateRestoreError(
                        "records in flight are for an input that the operator does not have",
                        hint="restore with the program that took the checkpoint, or from a savepoint",
                        operator=node.name,
                        input=number,
                    )
                in_flight.append((position, number, batch))
        return in_flight

    def close(self) -> None:
        """Let go of the local files of keyed state; a restore that is under way ends soon."""
        self._closed = True
        self._backends.close()

    def _context(self, draft: _Draft, position: int, restored: Restored) -> OperatorContext:
        node: OperatorNode = draft.vertex.operators[position]
        vertex, index, services = draft.vertex, draft.index, self._services
        attempt, slot = self._deploy.attempt, self._deploy.slot
        keyed = draft.keyed if position == 0 else None
        own = restored.get((vertex.id, index, node.uid), RestoredOperator())

        def to_client(payload: Any) -> None:
            report = msg.ClientOutput(attempt=attempt, slot=slot, uid=node.uid, payload=payload)
            services.post(lambda: services.report(report))

        return OperatorContext(
            job_id=self._deploy.job_id,
            uid=node.uid,
            name=node.name,
            subtask=index,
            parallelism=vertex.parallelism,
            max_parallelism=vertex.max_parallelism,
            attempt=attempt,
            clock=services.clock,
            background=services.commits,
            restored=own.operator_state,
            operator_store=own.store,
            keyed_backend=None if keyed is None else keyed.backend,
            request_splits=lambda: services.report(
                msg.SplitsRequested(attempt=attempt, uid=node.uid, subtask=index)
            ),
            wake=lambda: services.post(partial(self._wake, vertex.id, index)),
            wake_at=partial(self._set_timer, vertex.id, index, position),
            tell_client=to_client,
            deliver=to_client,
            failed=services.failed,
            emitted=copy_of if self._copy_records else None,
        )
