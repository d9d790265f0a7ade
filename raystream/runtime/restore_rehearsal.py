"""Whether a program would take over the state of a snapshot; nothing is started, and no state is read.

Operators say which states they have when they open.  So each of them is opened here, once, as subtask 0,
in front of a state backend that knows which states were stored and holds no entry of them:

    _metadata ──▶ operators that are gone, parallelism          (`raystream.runtime.coordinator_restore`)
    indexes   ──▶ stored states ──▶ open() of the operators ──▶ what fits and what does not

Sources and sinks are not opened: they keep no state that a program declares, and what they would do
reaches outside.  What the user's `open` does besides registering state, it does.  `migrate` functions are not
called, since there is no value to call them with.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, cast

from raystream.clock import Clock
from raystream.config.options import BackendConfig
from raystream.errors import RaystreamError
from raystream.graph.physical import OperatorNode, Vertex
from raystream.handles import StateInfo
from raystream.ids import Attempt, JobId
from raystream.keygroup import groups_of_subtask
from raystream.operators.operator import Operator, OperatorContext
from raystream.operators.process import ProcessOperator
from raystream.operators.sink_operator import SinkOperator
from raystream.operators.source_operator import SourceOperator
from raystream.runtime.coordinator_restore import plan_restore
from raystream.runtime.deployment import make_operators
from raystream.runtime.program import Program
from raystream.runtime.restore import found_states
from raystream.runtime.restored_states import RestoredState, joined
from raystream.savepoint.parts import PartState
from raystream.savepoint.snapshot import SnapshotReader
from raystream.state.heap import HeapBackend
from raystream.state.operator_store import OperatorStore
from raystream.state.snapshot_format import StoredChunk
from raystream.state.stored import Stored
from raystream.storage.metadata import OperatorMetadata

_JOB_ID = JobId("0" * 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """What became of a restore that was only tried.

    Attributes:
        states: every state that is stored or declared.
        failures: errors of operators that could not be opened, whose states are not among these.
    """

    states: Sequence[RestoredState]
    failures: Sequence[RaystreamError]


def rehearse_restore(program: Program, snapshot: SnapshotReader, *, clock: Clock) -> Rehearsal:
    """Return what would become of each state of a snapshot if the program started from it; blocks.

    Args:
        program: unpacked, so that each operator has a function of its own.
        snapshot: open.
        clock: tells the processing time to user functions.

    Raises:
        StateRestoreError: the parallelism does not fit, or the files are of another backend.
        StateCorruptError: the snapshot is damaged.
        StorageError: the store did not answer.
    """
    restore = plan_restore(program.plan, snapshot.directory, snapshot.metadata, allow_non_restored=True)
    found: list[RestoredState] = []
    failures: list[RaystreamError] = []
    for vertex in restore.plan.vertices:
        for node, operator in zip(vertex.operators, make_operators(vertex), strict=True):
            if isinstance(operator, SourceOperator | SinkOperator):
                continue
            rehearsed = _Rehearsed(vertex, node, operator, snapshot)
            try:
                found += rehearsed.states(program.config.backend, clock)
            except RaystreamError as error:
                if not rehearsed.opening:
                    raise
                failures.append(error)
    return Rehearsal(states=joined([*found, *restore.gone]), failures=failures)


class _Rehearsed:
    """One operator, to be opened in front of the description of its state."""

    def __init__(
        self, vertex: Vertex, node: OperatorNode, operator: Operator, snapshot: SnapshotReader
    ) -> None:
        self._vertex = vertex
        self._node = node
        self._operator = operator
        self._snapshot = snapshot
        self._stored = snapshot.metadata.operator(node.uid)
        self.opening = False

    def states(self, config: BackendConfig, clock: Clock) -> list[RestoredState]:
        """Return what becomes of each of its states.

        Raises:
            RaystreamError: user code raised if `opening`; else as in `rehearse_restore`.
        """
        context = self._context(config, clock)
        operator = self._operator
        operator.setup(context, _nothing, {})
        self.opening = True
        try:
            operator.open()
        finally:
            with suppress(Exception):
                operator.close()
        return [self._with_elements(state) for state in found_states([context], drop=False)]

    def _context(self, config: BackendConfig, clock: Clock) -> OperatorContext:
        vertex, node, stored = self._vertex, self._node, self._stored
        backend = None
        if vertex.keyed and node is vertex.operators[0] and isinstance(self._operator, ProcessOperator):
            groups = groups_of_subtask(0, vertex.max_parallelism, vertex.parallelism)
            backend = HeapBackend(groups, vertex.max_parallelism, self._operator.cursor, clock=clock)
            backend.restore([] if stored is None else self._without_entries(stored, config))
        return OperatorContext(
            job_id=_JOB_ID,
            uid=node.uid,
            name=node.name,
            subtask=0,
            parallelism=vertex.parallelism,
            max_parallelism=vertex.max_parallelism,
            attempt=Attempt(1),
            clock=clock,
            background=_NoBackground(),
            operator_store=OperatorStore(
                stored=() if stored is None else stored.states,
                is_restored=stored is not None and stored.stateful,
            ),
            keyed_backend=backend,
            request_splits=_nothing,
            wake=_nothing,
            wake_at=_nothing,
            tell_client=_nothing,
            deliver=_nothing,
            failed=_nothing,
        )

    def _without_entries(self, stored: OperatorMetadata, config: BackendConfig) -> Iterator[Stored]:
        for part in self._snapshot.parts(stored):
            if part.files is not None and config.type != part.files.index.backend:
                yield part.files  # Which the backend refuses, as it would in the job.
            yield cast(Stored, _Described(part.states, stored.max_parallelism))

    def _with_elements(self, state: RestoredState) -> RestoredState:
        """Return a state with what is stored of it, if it is operator state, which nobody has counted."""
        handles = [
            handle
            for subtask in (self._stored.subtasks if self._stored is not None else ())
            for handle in subtask.operator
            if handle.name == state.state
        ]
        if not handles or state.entries:
            return state
        return replace(
            state,
            entries=sum(handle.element_count for handle in handles),
            size_bytes=sum(handle.data.size_bytes for handle in handles),
        )


@dataclass(frozen=True, slots=True)
class _Described:
    """A snapshot of which the states are known, and that holds nothing."""

    states: tuple[PartState, ...]
    max_parallelism: int
    taken_ms: int = 0
    watermark_ms: int | None = None

    def chunks(self) -> Iterator[tuple[StateInfo, StoredChunk]]:
        return iter(())


class _NoBackground:
    """Takes work and does not do it: nothing has been started that could wait for it."""

    def submit(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        pass


def _nothing(*_: Any) -> None:
    """Do nothing: there is no job."""
