"""The split enumerators of a job: discovery in a thread, splits to readers that ask for them.

A split is in exactly one place: an enumerator or a reader.  Assignments and checkpoint triggers
go to a slot on one ordered path, and a snapshot of the enumerators is taken in the same step in
which the trigger is sent, so that no split is in both or in neither.

Every attempt begins with new enumerators, restored from the state in the checkpoint.
Outcomes of what an older attempt had started are dropped.
"""

import logging
import traceback
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from raystream.errors import RaystreamError, UserCodeError
from raystream.graph.physical import PhysicalPlan, Vertex
from raystream.ids import Attempt, OperatorUid, SlotId, VertexId
from raystream.operators.operator import Background
from raystream.operators.source import EnumeratorContext, SplitEnumerator
from raystream.runtime import messages as msg
from raystream.runtime.coordinator_log import Later

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Source:
    """A source in one attempt."""

    vertex: Vertex
    enumerator: SplitEnumerator
    waiting: list[int] = field(default_factory=list)
    """Subtasks whose request is not answered yet, in the order in which they asked."""

    @property
    def uid(self) -> OperatorUid:
        return self.vertex.operators[0].uid


class SourceCoordinator:
    """Runs the enumerators of a job.

    Args:
        background: runs `discover`.
        later: for the next discovery.
        send: sends a command to a slot.
        failed: told the attempt and the error when an enumerator fails in a running attempt.
    """

    def __init__(
        self,
        background: Background,
        *,
        later: Later,
        send: Callable[[SlotId, msg.Command], None],
        failed: Callable[[Attempt, RaystreamError], None],
    ) -> None:
        self._background = background
        self._later = later
        self._send = send
        self._failed = failed
        self._attempt = Attempt(0)  # 0 while none is under way.
        self._sources: dict[OperatorUid, _Source] = {}
        self._ended: dict[OperatorUid, bytes] = {}  # State of those that have ended for good.

    def begin(
        self,
        attempt: Attempt,
        plan: PhysicalPlan,
        states: Mapping[OperatorUid, bytes] | None,
        *,
        ended: Collection[VertexId] = (),
        ready: Callable[[], None],
    ) -> None:
        """Make the enumerators of an attempt and run their first discovery.

        Args:
            attempt: the attempt.
            plan: where the sources are.
            states: what the snapshot holds; None when nothing is restored.
            ended: sources that had ended in it: they look for nothing any more, and keep their state.
            ready: called when all have discovered; `failed` is called instead when one can not.
        """
        self._attempt = attempt
        self._sources = {}
        sources = [vertex for vertex in plan.vertices if vertex.source is not None]
        uids = [vertex.operators[0].uid for vertex in sources if vertex.id in ended]
        self._ended = {uid: state for uid, state in (states or {}).items() if uid in uids}
        try:
            for vertex in sources:
                if vertex.id not in ended:
                    source = _Source(vertex, _enumerator(vertex, states))
                    self._sources[source.uid] = source
        except BaseException as error:
            self._failed(attempt, _source_error(vertex, error))
            return
        missing = set(self._sources)
        if not missing:
            ready()

        def discovered(source: _Source) -> None:
            missing.discard(source.uid)
            if not missing:
                ready()

        for source in list(self._sources.values()):
            self._discover(attempt, source, discovered)

    def end(self) -> None:
        """Forget the enumerators: the attempt is over."""
        self._attempt = Attempt(0)
        self._sources, self._ended = {}, {}

    def splits_requested(self, report: msg.SplitsRequested) -> None:
        """Answer a reader, now or when there are splits; a reader of an attempt that is over gets none."""
        source = self._sources.get(report.uid)
        if source is not None:
            source.waiting.append(report.subtask)
            self._guarded(source, self._serve)

    def snapshot(self) -> dict[OperatorUid, bytes]:
        """Return the state of every enumerator.

        Raises:
            RaystreamError: an enumerator can not say.
        """
        states = dict(self._ended)
        for uid, source in self._sources.items():
            try:
                states[uid] = source.enumerator.snapshot()
            except BaseException as error:
                raise _source_error(source.vertex, error) from error
        return states

    def _discover(
        self, attempt: Attempt, source: _Source, first_done: Callable[[_Source], None] | None = None
    ) -> None:
        if attempt != self._attempt:
            return

        def done(found: Any) -> None:
            if attempt != self._attempt:
                return
            if isinstance(found, Exception):
                self._failed(attempt, _source_error(source.vertex, found))
            elif self._guarded(source, lambda source: self._take_in(attempt, source, found)) and first_done:
                first_done(source)

        self._background.submit(source.enumerator.discover, done)

    def _take_in(self, attempt: Attempt, source: _Source, found: Any) -> None:
        source.enumerator.discovered(found)
        self._serve(source)
        interval_ms = source.enumerator.discovery_interval_ms
        if interval_ms is not None:
            self._later(interval_ms, lambda: self._discover(attempt, source))

    def _serve(self, source: _Source) -> None:
        """Answer all requests that can be answered."""
        still_waiting = [subtask for subtask in source.waiting if not self._answer(source, subtask)]
        if source.enumerator.exhausted:  # Perhaps only since the last of them took the last split.
            still_waiting = [subtask for subtask in still_waiting if not self._answer(source, subtask)]
        source.waiting = still_waiting

    def _answer(self, source: _Source, subtask: int) -> bool:
        """Give a subtask its next splits, or word that there are none; False when neither is known."""
        splits = source.enumerator.next_splits(subtask)
        no_more = source.enumerator.exhausted
        if not splits and not no_more:
            return False
        self._send(
            source.vertex.slot(subtask),
            msg.AssignSplits(
                attempt=self._attempt,
                uid=source.uid,
                subtask=subtask,
                splits=tuple(splits),
                no_more=no_more,
            ),
        )
        return True

    def _guarded(self, source: _Source, call: Callable[[_Source], None]) -> bool:
        """Make a call into an enumerator; False when it failed, and with it the attempt."""
        attempt = self._attempt
        try:
            call(source)
        except BaseException as error:
            self._failed(attempt, _source_error(source.vertex, error))
            return False
        return True


def _enumerator(vertex: Vertex, states: Mapping[OperatorUid, bytes] | None) -> SplitEnumerator:
    context = EnumeratorContext(
        parallelism=vertex.parallelism, max_parallelism=vertex.max_parallelism, restored=states is not None
    )
    state = states.get(vertex.operators[0].uid) if states is not None else None
    enumerator: SplitEnumerator = vertex.source.enumerator(context, state)
    return enumerator


def _source_error(vertex: Vertex, error: BaseException) -> RaystreamError:
    if isinstance(error, RaystreamError):
        return error
    operator = vertex.operators[0]
    return UserCodeError(
        "split enumerator of a source failed",
        operator=operator.name,
        uid=operator.uid,
        cause=repr(error),
        traceback="".join(traceback.format_exception(error)),
    )
