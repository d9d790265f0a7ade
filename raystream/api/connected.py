"""Two streams on their way into one operator: connected streams, and a stream beside a broadcast one.

Both only say how the next operator is connected: the first stream enters its input 0, the second
its input 1.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Unpack

from raystream.api.co_functions import (
    BroadcastProcessFunction,
    CoFlatMapFunction,
    CoMapFunction,
    CoProcessFunction,
    KeyedBroadcastProcessFunction,
    KeyedCoProcessFunction,
)
from raystream.api.factories import CallablePair, OperatorFactory
from raystream.api.functions import Function
from raystream.api.operator_options import FunctionUse, OperatorOptions, default_name
from raystream.errors import GraphError
from raystream.graph.logical import OperatorKind, Upstream
from raystream.operators.broadcast import BroadcastProcessOperator, KeyedBroadcastProcessOperator
from raystream.operators.co_process import (
    CoFlatMapOperator,
    CoMapOperator,
    CoProcessOperator,
    KeyedCoFlatMapOperator,
    KeyedCoMapOperator,
    KeyedCoProcessOperator,
)
from raystream.operators.operator import Operator
from raystream.state.descriptor import MapStateDescriptor

if TYPE_CHECKING:
    from raystream.api.stream import DataStream

T1 = TypeVar("T1")
T2 = TypeVar("T2")
U = TypeVar("U")


@dataclass(frozen=True, slots=True)
class BroadcastStream(Generic[T2]):
    """A stream of which every subtask gets every record, with the state that they write."""

    stream: "DataStream[T2]"
    descriptors: tuple[MapStateDescriptor[Any, Any], ...]


class ConnectedStreams(Generic[T1, T2]):
    """Two streams that share an operator, each with a function of its own."""

    def __init__(self, first: "DataStream[T1]", second: "DataStream[T2]", *, keyed: bool) -> None:
        self._first = first
        self._second = second
        self._keyed = keyed

    def key_by(self, first: Callable[[T1], Any], second: Callable[[T2], Any]) -> "ConnectedStreams[T1, T2]":
        """Return the streams with all records of one key, of either, in one subtask.

        Args:
            first: returns the key of a record of the first stream.
            second: returns the key of a record of the second; of the same type.
        """
        return ConnectedStreams(self._first.key_by(first), self._second.key_by(second), keyed=True)

    def map(
        self,
        function: CoMapFunction[T1, T2, U] | Callable[[T1], U],
        second: Callable[[T2], U] | None = None,
        **options: Unpack[OperatorOptions],
    ) -> "DataStream[U]":
        """Return the stream of what the function makes of each record.

        Args:
            function: a `CoMapFunction`, or a callable for the records of the first stream.
            second: a callable for those of the second.
            options: as everywhere.
        """
        return self._apply(_MAP, function, second, options)

    def flat_map(
        self,
        function: CoFlatMapFunction[T1, T2, U] | Callable[[T1], Any],
        second: Callable[[T2], Any] | None = None,
        **options: Unpack[OperatorOptions],
    ) -> "DataStream[U]":
        """Return the stream of all records that the function yields or returns; arguments as for `map`."""
        return self._apply(_FLAT_MAP, function, second, options)

    def process(
        self,
        function: CoProcessFunction[T1, T2, U] | Callable[[T1, Any], Any],
        second: Callable[[T2, Any], Any] | None = None,
        **options: Unpack[OperatorOptions],
    ) -> "DataStream[U]":
        """Return the stream of what the function yields for each record; arguments as for `map`.

        Raises:
            GraphError: a `KeyedCoProcessFunction`, and not both streams are keyed.
        """
        if isinstance(function, KeyedCoProcessFunction) and not self._keyed:
            raise GraphError(
                "keyed function on connected streams that are not both keyed",
                hint="call key_by(key_of_first, key_of_second) before process(...)",
                function=type(function).__name__,
            )
        return self._apply(_PROCESS, function, second, options)

    def _apply(
        self, operation: "_CoOperation", function: Any, second: Any, options: OperatorOptions
    ) -> "DataStream[Any]":
        operation.check(function, second)
        rich = isinstance(function, Function)
        run = function if rich else CallablePair(operation.method, function, second)
        with_state = self._keyed and (rich or operation is _PROCESS)  # The context has the key.
        return self._first._derive(
            kind=operation.keyed_kind if self._keyed else operation.kind,
            operation=operation.use.operation,
            name=default_name(operation.use.operation, function),
            factory=OperatorFactory(operation.with_state if with_state else operation.operator, run),
            stateful=with_state or hasattr(function, "initialize_state"),
            options=options,
            upstreams=two_inputs(self._first, self._second),
        )


class BroadcastConnectedStream(Generic[T1, T2]):
    """A stream beside a broadcast stream: records of the one see the state that the other writes."""

    def __init__(self, stream: "DataStream[T1]", broadcast: BroadcastStream[T2], *, keyed: bool) -> None:
        self._stream = stream
        self._broadcast = broadcast
        self._keyed = keyed

    def process(
        self,
        function: BroadcastProcessFunction[T1, T2, U] | KeyedBroadcastProcessFunction[T1, T2, U],
        **options: Unpack[OperatorOptions],
    ) -> "DataStream[U]":
        """Return the stream of what the function yields for each record.

        Raises:
            GraphError: the function is not for a keyed stream and this one is, or the other way round.
        """
        wanted = KeyedBroadcastProcessFunction if self._keyed else BroadcastProcessFunction
        if not isinstance(function, wanted):
            raise GraphError(
                "function does not fit a broadcast stream beside a stream "
                + ("with keys" if self._keyed else "without keys"),
                hint=f"pass an object of a subclass of {wanted.__name__}",
                function=repr(function)[:80],
            )
        return self._stream._derive(
            kind=OperatorKind.KEYED_BROADCAST_PROCESS if self._keyed else OperatorKind.BROADCAST_PROCESS,
            operation="process",
            name=default_name("process", function),
            factory=OperatorFactory(
                KeyedBroadcastProcessOperator if self._keyed else BroadcastProcessOperator,
                function,
                (self._broadcast.descriptors,),
            ),
            stateful=True,
            options=options,
            upstreams=two_inputs(self._stream, self._broadcast.stream),
        )


def two_inputs(first: "DataStream[Any]", second: "DataStream[Any]") -> tuple[Upstream, ...]:
    """Return the outputs of two streams as what an operator with two inputs reads."""
    return (*first._upstreams, *(replace(upstream, input=1) for upstream in second._upstreams))


@dataclass(frozen=True, slots=True, kw_only=True)
class _CoOperation:
    """What one method of connected streams makes."""

    use: FunctionUse
    method: str
    """Method of the function object for the first input, without its number."""
    kind: OperatorKind
    keyed_kind: OperatorKind
    operator: type[Operator]
    with_state: type[Operator]

    def check(self, function: Any, second: Any) -> None:
        """Accept one function object, or two callables.

        Raises:
            GraphError: anything else.
        """
        self.use.check(function)
        if isinstance(function, Function):
            if second is not None:
                raise GraphError(
                    "function object for both inputs and a second function", operation=self.use.operation
                )
        elif second is None:
            raise GraphError(
                "one function for two inputs",
                hint=f"pass a {self.use.accepts[0].__name__}, or a callable for each input",
                operation=self.use.operation,
            )
        else:
            self.use.check(second)


_MAP = _CoOperation(
    use=FunctionUse("map", (CoMapFunction,), returns_record=True),
    method="map",
    kind=OperatorKind.CO_MAP,
    keyed_kind=OperatorKind.CO_MAP,
    operator=CoMapOperator,
    with_state=KeyedCoMapOperator,
)
_FLAT_MAP = _CoOperation(
    use=FunctionUse("flat_map", (CoFlatMapFunction,)),
    method="flat_map",
    kind=OperatorKind.CO_FLAT_MAP,
    keyed_kind=OperatorKind.CO_FLAT_MAP,
    operator=CoFlatMapOperator,
    with_state=KeyedCoFlatMapOperator,
)
_PROCESS = _CoOperation(
    use=FunctionUse("process", (CoProcessFunction,)),
    method="process_element",
    kind=OperatorKind.CO_PROCESS,
    keyed_kind=OperatorKind.KEYED_CO_PROCESS,
    operator=CoProcessOperator,
    with_state=KeyedCoProcessOperator,
)
