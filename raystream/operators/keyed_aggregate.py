"""A running aggregation on a keyed stream."""

from typing import Any

from raystream.operators.process import KeyedProcessOperator, ProcessContext
from raystream.operators.user_code import FunctionAdapter, close_function
from raystream.state.descriptor import AggregatingStateDescriptor


class AggregateFunctionAdapter(FunctionAdapter):
    """An aggregate function in the place of a keyed process function."""

    def open(self, ctx: Any) -> None:
        if hasattr(self._function, "open") and hasattr(self._function, "close"):
            self._function.open(ctx)
        self._state = ctx.get_aggregating_state(AggregatingStateDescriptor("aggregated", self._function))

    def process_element(self, value: Any, ctx: ProcessContext) -> tuple[Any]:
        """Return the result of everything that this key has seen."""
        self._state.add(value)
        return (self._state.get(),)

    def close(self) -> None:
        close_function(self._function)


class AggregateOperator(KeyedProcessOperator):
    """Emits, for each record, the result of the aggregation of its key so far."""

    def __init__(self, function: Any) -> None:
        super().__init__(AggregateFunctionAdapter(function))
