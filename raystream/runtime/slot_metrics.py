"""What a slot reports of its subtasks, about once a second: counts, rates, times, sizes."""

from collections.abc import Iterable, Sequence

from raystream.clock import Clock
from raystream.handles import SubtaskSnapshot
from raystream.metrics import catalogue
from raystream.metrics.rates import RateWindow
from raystream.metrics.reports import OperatorMetrics, SubtaskMetrics
from raystream.operators.operator import Operator
from raystream.operators.sink_operator import SinkOperator
from raystream.protocol.watermark import BEGINNING_MS, END_MS
from raystream.runtime import messages as msg
from raystream.runtime.program import Program
from raystream.runtime.subtask import Subtask
from raystream.runtime.task_times import TaskTimes
from raystream.state.backend import CacheUse


class SlotMetrics:
    """Follows the subtasks of a slot from the start of an attempt.

    Attributes:
        times: of the subtasks; the loop tells it of each round.
    """

    def __init__(
        self, deploy: msg.Deploy, program: Program, clock: Clock, subtasks: Sequence[Subtask]
    ) -> None:
        self._deploy = deploy
        self._job_name = program.job_name
        self._clock = clock
        self._subtasks = subtasks
        self.times = TaskTimes(clock, program.plan, subtasks)
        now_ms = clock.monotonic_ms()
        self._tasks = [_Task(subtask, self.times, now_ms) for subtask in subtasks]

    def snapshot_taken(self, snapshot: SubtaskSnapshot) -> None:
        """Take note of how large the state of a subtask is."""
        for task in self._tasks:
            if (task.subtask.vertex.id, task.subtask.index) == (snapshot.vertex, snapshot.subtask):
                task.state_bytes = {one.uid: one.size_bytes for one in snapshot.operators}

    def progress(self) -> msg.Progress:
        """Return what the subtasks have done until now, and in the last seconds."""
        now_ms = self._clock.monotonic_ms()
        operators = [operator for subtask in self._subtasks for operator in subtask.operators]
        return msg.Progress(
            attempt=self._deploy.attempt,
            slot=self._deploy.slot,
            job_name=self._job_name,
            records_in=sum(subtask.records_in for subtask in self._subtasks if subtask.source is not None),
            records_out=sum(one.records_written for one in operators if isinstance(one, SinkOperator)),
            dead_letters=sum(operator.dead_letters for operator in operators),
            subtasks=tuple(task.sample(now_ms) for task in self._tasks),
        )


class _Task:
    """One subtask.

    Attributes:
        state_bytes: by uid, in the last snapshot.
    """

    def __init__(self, subtask: Subtask, times: TaskTimes, now_ms: float) -> None:
        self.subtask = subtask
        self.state_bytes: dict[str, int] = {}
        self._time = times.of(subtask)
        self._times = RateWindow(now_ms, 2)
        self._operators = [_Operator(subtask, position, now_ms) for position in range(len(subtask.operators))]

    def sample(self, now_ms: float) -> SubtaskMetrics:
        busy, held = self._times.sample(now_ms, (self._time.busy_ms, self._time.back_pressured_ms))
        times = {
            catalogue.BUSY_TIME: busy,
            catalogue.BACK_PRESSURED_TIME: held,
            catalogue.IDLE_TIME: max(1000.0 - busy - held, 0.0),
        }
        operators = [one.sample(now_ms, self.state_bytes) for one in self._operators]
        operators[0].values.update(times)
        vertex = self.subtask.vertex
        return SubtaskMetrics(
            vertex=vertex.id, task=vertex.name, subtask=self.subtask.index, operators=tuple(operators)
        )


class _Operator:
    """One operator of a chain; knows who hands it its records."""

    def __init__(self, subtask: Subtask, position: int, now_ms: float) -> None:
        self._subtask = subtask
        self._node = subtask.vertex.operators[position]
        self._operator = subtask.operators[position]
        self._feeder = _feeder(subtask, position)
        self._rates = RateWindow(now_ms, 4)

    def sample(self, now_ms: float, state_bytes: dict[str, int]) -> OperatorMetrics:
        operator, feeder = self._operator, self._feeder
        records_in = self._subtask.records_in if feeder is None else feeder[0].sent[feeder[1]].records
        backend = operator.context.keyed_backend
        cache = None if backend is None else backend.cache_use
        totals = (records_in, operator.records_out, *(cache or CacheUse(0, 0)))
        in_rate, out_rate, accesses, reads = self._rates.sample(now_ms, totals)
        values: dict[str, float] = {
            catalogue.NUM_RECORDS_IN: records_in,
            catalogue.NUM_RECORDS_OUT: operator.records_out,
            catalogue.NUM_RECORDS_IN_PER_SECOND: in_rate,
            catalogue.NUM_RECORDS_OUT_PER_SECOND: out_rate,
            catalogue.NUM_DEAD_LETTERS: operator.dead_letters,
        }
        if cache is not None and accesses:
            values[catalogue.CACHE_HIT_RATE] = max(1.0 - reads / accesses, 0.0)
        if self._node.uid in state_bytes:
            values[catalogue.STATE_SIZE] = state_bytes[self._node.uid]
        watermarks_ms = {
            catalogue.INPUT_WATERMARK: self._subtask.watermark_ms
            if feeder is None
            else feeder[0].sent_event_time.watermark_ms,
            catalogue.OUTPUT_WATERMARK: operator.sent_event_time.watermark_ms,
        }
        values |= {
            key: at_ms
            for key, at_ms in watermarks_ms.items()
            if at_ms is not None and BEGINNING_MS < at_ms < END_MS
        }
        user = dict(operator.context.metrics.values(now_ms))
        return OperatorMetrics(uid=self._node.uid, name=self._node.name, values=values, user=user)


def _feeder(subtask: Subtask, position: int) -> tuple[Operator, str | None] | None:
    """Return the operator of the chain that hands its records to another one, and from which output."""
    nodes: Iterable[tuple[Operator, tuple[tuple[str | None, int], ...]]] = (
        (operator, node.chained)
        for operator, node in zip(subtask.operators, subtask.vertex.operators, strict=True)
    )
    return next(
        ((operator, tag) for operator, chained in nodes for tag, chain in chained if chain == position), None
    )
