"""Streams: what a program writes down, operation by operation.

A stream is a value: every operation returns a new one and adds at most one operator to
the logical graph of the environment.  Nothing runs before `env.execute()`.

Operations that make an operator take `name=`, `uid=`, `parallelism=`, `max_parallelism=`,
`slot_sharing_group=` and `chain=` (see `OperatorOptions`); `key_by`, `rebalance`, `union` and
`get_side_output` make none, they say how the next operator is connected.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Unpack

from raystream.api.aggregates import SumField
from raystream.api.bindings import bound
from raystream.api.exchange import Exchanges
from raystream.api.factories import CallableProcess, FirstRecords, OperatorFactory
from raystream.api.functions import (
    AggregateFunction,
    FilterFunction,
    FlatMapFunction,
    Function,
    KeyedProcessFunction,
    MapFunction,
    ProcessFunction,
    ReduceFunction,
)
from raystream.api.operator_options import (
    FunctionUse,
    NewOperator,
    OperatorOptions,
    chain_hint,
    checked_name,
    default_name,
    makes_dead_letters,
    sharing_group,
)
from raystream.api.side_outputs import SideOutputs
from raystream.errors import GraphError
from raystream.graph.logical import LogicalGraph, LogicalNode, OperatorKind, Upstream
from raystream.graph.physical import Partitioning
from raystream.operators.keyed_aggregate import AggregateOperator
from raystream.operators.keyed_map import KeyedFilterOperator, KeyedFlatMapOperator, KeyedMapOperator
from raystream.operators.map import FilterOperator, FlatMapOperator, MapOperator
from raystream.operators.operator import Operator
from raystream.operators.process import KeyedProcessOperator, ProcessOperator, ReduceOperator
from raystream.operators.sink import Sink
from raystream.operators.sink_operator import SinkOperator
from raystream.operators.watermarks import WatermarkOperator, WatermarkStrategy, checked_strategy

if TYPE_CHECKING:
    from raystream.api.environment import StreamEnvironment

T = TypeVar("T")
U = TypeVar("U")
K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class StreamSink:
    """The end of a stream; tells under which uid the sink keeps its state."""

    name: str
    uid: str | None
    """None when it is generated."""


class DataStream(Exchanges[T], SideOutputs):
    """Records on their way from one operator to the next.

    Streams come from `env.from_source`, `env.from_collection` and from other streams.
    """

    def __init__(
        self, environment: "StreamEnvironment", graph: LogicalGraph, upstreams: tuple[Upstream, ...]
    ) -> None:
        self._environment = environment
        self._graph = graph
        self._upstreams = upstreams

    def map(
        self, function: Callable[[T], U] | MapFunction[T, U], **options: Unpack[OperatorOptions]
    ) -> "DataStream[U]":
        """Return the stream of what the function makes of each record."""
        return self._apply(_MAP, function, options)

    def flat_map(
        self,
        function: Callable[[T], Iterable[U] | None] | FlatMapFunction[T, U],
        **options: Unpack[OperatorOptions],
    ) -> "DataStream[U]":
        """Return the stream of all records that the function yields or returns for each record."""
        return self._apply(_FLAT_MAP, function, options)

    def filter(
        self, function: Callable[[T], bool] | FilterFunction[T], **options: Unpack[OperatorOptions]
    ) -> "DataStream[T]":
        """Return the stream of the records for which the function is true."""
        return self._apply(_FILTER, function, options)

    def process(
        self,
        function: ProcessFunction[T, U] | Callable[[T, Any], Iterable[U] | None],
        **options: Unpack[OperatorOptions],
    ) -> "DataStream[U]":
        """Return the stream of what the function yields for each record and its context.

        A record must not be changed once it is emitted, as `ProcessFunction` explains.

        Raises:
            GraphError: a `KeyedProcessFunction` on a stream that is not keyed.
        """
        if isinstance(function, KeyedProcessFunction):
            raise GraphError(
                "keyed function on a stream that is not keyed",
                hint="call key_by(...) before process(...)",
                function=type(function).__name__,
            )
        return self._apply(_PROCESS, function, options)

    def assign_timestamps_and_watermarks(
        self, strategy: WatermarkStrategy, **options: Unpack[OperatorOptions]
    ) -> "DataStream[T]":
        """Return the stream with timestamps and watermarks as the strategy says.

        Raises:
            GraphError: the argument is not a strategy.
        """
        interval_ms = self._environment.config.pipeline.auto_watermark_interval_ms
        return self._derive(
            kind=OperatorKind.WATERMARKS,
            operation="assign_timestamps_and_watermarks",
            name="watermarks",
            factory=OperatorFactory(WatermarkOperator, checked_strategy(strategy), (interval_ms,)),
            stateful=False,
            options=options,
        )

    def key_by(self, key_selector: Callable[[T], K]) -> "KeyedStream[T, K]":
        """Return the stream with all records of one key in one subtask.

        Args:
            key_selector: returns the key of a record: text, bytes, numbers, dates, UUIDs or
                tuples of these; the same key for the same record, always.
        """
        _KEY_BY.check(key_selector)
        upstreams = tuple(
            replace(upstream, partitioning=Partitioning.HASH, key_selector=key_selector, partitioner=None)
            for upstream in self._upstreams
        )
        return KeyedStream(self._environment, self._graph, upstreams)

    def sink_to(self, sink: Sink, **options: Unpack[OperatorOptions]) -> StreamSink:
        """End the stream in a sink.

        Raises:
            GraphError: the argument is not a sink.
        """
        if isinstance(sink, type) or not callable(getattr(sink, "open_writer", None)):
            raise GraphError(
                "argument of sink_to is not a sink",
                hint="pass an object of a sink class, such as FileSink.lines(directory)",
                argument=repr(sink)[:80],
            )
        return self._end(sink, "sink_to", f"sink({type(sink).__name__})", options)

    def print(self, **options: Unpack[OperatorOptions]) -> StreamSink:
        """End the stream on the client's standard output, each record as `subtask> record`."""
        return self._end(bound("print-sink")(), "print", "print", options)

    def execute_and_collect(self, limit: int | None = None) -> list[T]:
        """Run the job of the environment and return the records of this stream.

        Args:
            limit: cancel the job when this many have come; without it the job must end by itself.

        Raises:
            GraphError: the stream never ends and there is no limit.
            JobFailedError: the job failed.
        """
        return self._environment._collect(self, limit)

    def _collect_to(self, sink: Any, limit: int | None) -> None:
        """End the stream at the client, in the subtasks that its records are in."""
        parallelism = {self._graph[upstream.node].parallelism for upstream in self._upstreams}
        common = parallelism.pop() if len(parallelism) == 1 else None
        stream = self
        if limit is not None:
            stream = self.filter(FirstRecords(limit), name="first records", parallelism=common)
        stream._end(sink, "execute_and_collect", "collect", {"parallelism": common})

    def _end(self, sink: Any, operation: str, name: str, options: OperatorOptions) -> StreamSink:
        transactional = getattr(sink, "transactional", True)  # A user's sink may not say it.
        node = self._add(
            kind=OperatorKind.SINK,
            operation=operation,
            name=name,
            factory=OperatorFactory(SinkOperator, sink),
            stateful=transactional,
            transactional=transactional,
            options=options,
        )
        return StreamSink(node.name, node.uid)

    def _apply(self, operation: "_Operation", function: Any, options: OperatorOptions) -> "DataStream[Any]":
        operation.use.check(function)
        name = operation.use.operation
        keyed = operation.kind.needs_key
        rich_on_keyed = self._keyed and isinstance(function, Function)
        if operation.use is _PROCESS.use and not isinstance(function, Function):
            run: Any = CallableProcess(function)
        else:
            run = function
        operator = operation.with_state if rich_on_keyed else operation.operator
        return self._derive(
            kind=operation.kind,
            operation=name,
            name=default_name(name, function),
            factory=OperatorFactory(operator, run),
            stateful=keyed or rich_on_keyed or hasattr(function, "initialize_state"),
            options=options,
        )

    def _derive(self, **declared: Unpack[NewOperator]) -> "DataStream[Any]":
        """Add an operator and return the stream of its output."""
        return self._stream((Upstream(node=self._add(**declared).id),))

    def _stream(self, upstreams: tuple[Upstream, ...]) -> "DataStream[Any]":
        return DataStream(self._environment, self._graph, upstreams)

    def _add(self, **declared: Unpack[NewOperator]) -> LogicalNode:
        options, operation = declared["options"], declared["operation"]
        node = LogicalNode(
            id=self._graph.next_id(),
            kind=declared["kind"],
            chain=chain_hint(options, operation),
            name=checked_name(options, operation, declared["name"]),
            factory=declared["factory"],
            upstreams=declared.get("upstreams", self._upstreams),
            uid=options.get("uid"),
            parallelism=options.get("parallelism"),
            max_parallelism=options.get("max_parallelism"),
            slot_sharing_group=sharing_group(options),
            stateful=declared["stateful"],
            transactional=declared.get("transactional", False),
            dead_letters=makes_dead_letters(options, operation, declared["kind"]),
        )
        self._graph.add(node)
        return node


class KeyedStream(DataStream[T], Generic[T, K]):
    """A stream in which all records of one key go to one subtask, where the key has its state.

    Every function object has that state at hand, also one of `map`, `flat_map` or `filter`: it is
    registered in `open(ctx)`.
    """

    _keyed = True

    def process(
        self,
        function: ProcessFunction[T, U] | Callable[[T, Any], Iterable[U] | None],
        **options: Unpack[OperatorOptions],
    ) -> "DataStream[U]":
        """Return the stream of what the function yields for each record, with its key's state at hand.

        A record must not be changed once it is emitted, as `KeyedProcessFunction` explains.
        """
        return self._apply(_KEYED_PROCESS, function, options)

    def reduce(
        self, function: Callable[[T, T], T] | ReduceFunction[T], **options: Unpack[OperatorOptions]
    ) -> "DataStream[T]":
        """Return, for each record, the reduction of all records of its key so far.

        The first record of a key is emitted as it is.
        """
        return self._apply(_REDUCE, function, options)

    def aggregate(
        self, function: AggregateFunction[T, Any, U], **options: Unpack[OperatorOptions]
    ) -> "DataStream[U]":
        """Return, for each record, the result of the aggregation of all records of its key so far."""
        return self._apply(_AGGREGATE, function, options)

    def sum(self, field: int | str | None = None, **options: Unpack[OperatorOptions]) -> "DataStream[T]":
        """Return, for each record, the first record of its key with the field summed over all so far.

        Args:
            field: index of a tuple's or list's field, name of an attribute or of a dict's key;
                None sums records that are themselves numbers.
        """
        if isinstance(field, bool) or not isinstance(field, int | str | None):
            raise GraphError(
                "field to sum is neither an index nor a name",
                hint="write sum(1), sum('bytes') or, for numbers, sum()",
                field=field,
            )
        named: OperatorOptions = {"name": "sum" if field is None else f"sum({field!r})"}
        return self._apply(_REDUCE, SumField(field), {**named, **options})


@dataclass(frozen=True, slots=True)
class _Operation:
    """What one method of a stream makes."""

    use: FunctionUse
    kind: OperatorKind
    operator: type[Operator]
    with_state: type[Operator]
    """The operator of a function object on a keyed stream, which may keep state for each key."""


_KEY_BY = FunctionUse("key_by", (), returns_record=True)
_MAP = _Operation(
    FunctionUse("map", (MapFunction,), returns_record=True), OperatorKind.MAP, MapOperator, KeyedMapOperator
)
_FLAT_MAP = _Operation(
    FunctionUse("flat_map", (FlatMapFunction,)), OperatorKind.FLAT_MAP, FlatMapOperator, KeyedFlatMapOperator
)
_FILTER = _Operation(
    FunctionUse("filter", (FilterFunction,), returns_record=True),
    OperatorKind.FILTER,
    FilterOperator,
    KeyedFilterOperator,
)
_PROCESS = _Operation(
    FunctionUse("process", (ProcessFunction,)), OperatorKind.PROCESS, ProcessOperator, KeyedProcessOperator
)
_KEYED_PROCESS = _Operation(
    _PROCESS.use, OperatorKind.KEYED_PROCESS, KeyedProcessOperator, KeyedProcessOperator
)
_AGGREGATE = _Operation(
    FunctionUse("aggregate", (AggregateFunction,), takes_callables=False),
    OperatorKind.AGGREGATE,
    AggregateOperator,
    AggregateOperator,
)
_REDUCE = _Operation(
    FunctionUse("reduce", (ReduceFunction,), returns_record=True),
    OperatorKind.REDUCE,
    ReduceOperator,
    ReduceOperator,
)
