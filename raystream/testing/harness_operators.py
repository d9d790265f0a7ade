"""Which operator a harness runs for a function: the choice that the methods of a stream make in a job."""

from collections.abc import Callable
from typing import Any, Literal

import cloudpickle

from raystream.api.co_functions import (
    BroadcastProcessFunction,
    KeyedBroadcastProcessFunction,
    KeyedCoProcessFunction,
)
from raystream.api.factories import CallableProcess, OperatorFactory
from raystream.api.functions import Function, KeyedProcessFunction
from raystream.errors import ConfigError
from raystream.operators.broadcast import BroadcastProcessOperator, KeyedBroadcastProcessOperator
from raystream.operators.co_process import (
    CoFlatMapOperator,
    CoMapOperator,
    CoProcessOperator,
    KeyedCoFlatMapOperator,
    KeyedCoMapOperator,
    KeyedCoProcessOperator,
)
from raystream.operators.keyed_aggregate import AggregateOperator
from raystream.operators.keyed_map import KeyedFilterOperator, KeyedFlatMapOperator, KeyedMapOperator
from raystream.operators.map import FilterOperator, FlatMapOperator, MapOperator
from raystream.operators.operator import Operator
from raystream.operators.process import KeyedProcessOperator, ProcessOperator, ReduceOperator
from raystream.state.descriptor import MapStateDescriptor

Operation = Literal["map", "flat_map", "filter", "process", "reduce", "aggregate"]
"""The method of a stream that would take the function."""

_OPERATORS: dict[str, type[Operator]] = {
    "map": MapOperator,
    "flat_map": FlatMapOperator,
    "filter": FilterOperator,
    "process": ProcessOperator,
    "reduce": ReduceOperator,
    "aggregate": AggregateOperator,
    "co_process": CoProcessOperator,
    "co_map": CoMapOperator,
    "co_flat_map": CoFlatMapOperator,
    "broadcast": BroadcastProcessOperator,
}
_WITH_STATE: dict[str, type[Operator]] = {
    "map": KeyedMapOperator,
    "flat_map": KeyedFlatMapOperator,
    "filter": KeyedFilterOperator,
    "process": KeyedProcessOperator,
    "reduce": ReduceOperator,
    "aggregate": AggregateOperator,
    "co_process": KeyedCoProcessOperator,
    "co_map": KeyedCoMapOperator,
    "co_flat_map": KeyedCoFlatMapOperator,
    "broadcast": KeyedBroadcastProcessOperator,
}
_METHODS: dict[str, str] = {
    "process_broadcast_element": "broadcast",
    "process_element1": "co_process",
    "map1": "co_map",
    "flat_map1": "co_flat_map",
    "process_element": "process",
    "map": "map",
    "flat_map": "flat_map",
    "filter": "filter",
    "reduce": "reduce",
    "create_accumulator": "aggregate",
}
"""By method of a function object, most telling first: what it is for."""

_TWO_INPUTS = {"broadcast", "co_process", "co_map", "co_flat_map"}


class OperatorChoice:
    """Makes the operator of each subtask around a copy of the function.

    Args:
        function: as for the harness.
        operation: as for the harness.
        keyed: the stream has keys.
        broadcast: descriptors of the broadcast states.

    Raises:
        ConfigError: the arguments do not fit each other, or the function cannot be copied.
    """

    def __init__(
        self,
        function: Any,
        operation: Operation | None,
        *,
        keyed: bool,
        broadcast: tuple[MapStateDescriptor[Any, Any], ...],
    ) -> None:
        self.name = getattr(function, "__name__", type(function).__name__)
        self._use = operation or _use_of(function, keyed=keyed)
        self._operator = _operator_of(function, self._use, keyed=keyed)
        self._arguments = (broadcast,) if self.broadcasts else ()
        self._shipped = _shipped(function, self.name)

    @property
    def broadcasts(self) -> bool:
        """True when the second input is a broadcast stream."""
        return self._use == "broadcast"

    @property
    def shares_keys(self) -> bool:
        """True when both inputs have keys, or none."""
        return self.input_count > 1 and not self.broadcasts

    @property
    def input_count(self) -> int:
        """Number of inputs of the operator."""
        return 2 if self._use in _TWO_INPUTS else 1

    def make(self) -> Operator:
        """Return an operator with a copy of the function."""
        function = cloudpickle.loads(self._shipped)
        if self._use == "process" and not hasattr(function, "process_element"):
            function = CallableProcess(function)
        return OperatorFactory(self._operator, function, self._arguments)()


def _use_of(function: Any, *, keyed: bool) -> str:
    for method, use in _METHODS.items():
        if hasattr(function, method):
            return use
    if keyed:
        raise ConfigError(
            "harness cannot tell what a plain callable on a keyed stream is for",
            hint='pass operation="process" or operation="reduce"',
            function=getattr(function, "__name__", repr(function)),
        )
    return "map"


def _operator_of(function: Any, use: str, *, keyed: bool) -> Callable[..., Operator]:
    if not keyed and (use == "reduce" or isinstance(function, _KEYED_FUNCTIONS)):
        raise ConfigError(
            "function needs a keyed stream",
            hint="pass key=, the function that key_by would get",
            function=type(function).__name__,
        )
    if keyed and isinstance(function, BroadcastProcessFunction):
        raise ConfigError(
            "function is for a stream without keys",
            hint="derive it from KeyedBroadcastProcessFunction",
            function=type(function).__name__,
        )
    with_state = keyed and (use == "process" or isinstance(function, Function))
    return (_WITH_STATE if with_state else _OPERATORS)[use]


_KEYED_FUNCTIONS = (KeyedProcessFunction, KeyedCoProcessFunction, KeyedBroadcastProcessFunction)


def _shipped(function: Any, name: str) -> bytes:
    try:
        data: bytes = cloudpickle.dumps(function)
    except Exception as error:
        raise ConfigError(
            "function of an operator cannot be copied to its subtasks",
            hint="create what does not pickle in open(), which runs in the subtask",
            operator=name,
            cause=f"{type(error).__name__}: {error}",
        ) from error
    return data
