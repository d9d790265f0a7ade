"""map, flat_map and filter on a keyed stream, of function objects: these may keep state for each key.

Plain callables have no `open` to register state in.  They run in the operators of
`raystream.operators.map`, whose loops are faster, on keyed streams too.
"""

from typing import Any

from raystream.operators.process import KeyedProcessOperator, ProcessElement
from raystream.operators.user_code import FunctionAdapter


class _Adapter(FunctionAdapter):
    """A function object in the place of a `KeyedProcessFunction`."""

    def __init__(self, function: Any, process_element: ProcessElement) -> None:
        super().__init__(function)
        self.process_element = process_element


class KeyedMapOperator(KeyedProcessOperator):
    """Emits one record for each record."""

    def __init__(self, function: Any) -> None:
        super().__init__(_Adapter(function, lambda value, _: (function.map(value),)))


class KeyedFlatMapOperator(KeyedProcessOperator):
    """Emits every record of the iterable that the function returns; None stands for none."""

    def __init__(self, function: Any) -> None:
        super().__init__(_Adapter(function, lambda value, _: function.flat_map(value)))


class KeyedFilterOperator(KeyedProcessOperator):
    """Emits the records for which the function is true."""

    def __init__(self, function: Any) -> None:
        super().__init__(_Adapter(function, lambda value, _: (value,) if function.filter(value) else None))
