"""How the operators of a plan are made, and the functions that the API itself puts into a plan."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from raystream.operators.operator import Operator


@dataclass(frozen=True, slots=True)
class OperatorFactory:
    """Makes an operator around a user's function, source or sink.

    Every call uses the same function object.  A plan that was packed and unpacked
    (`raystream.runtime.program`) makes a new copy of it for each subtask.
    """

    operator: Callable[..., Operator]
    """The class of the operator."""
    function: Any
    arguments: tuple[Any, ...] = ()
    """What the operator takes beside the function."""

    def __call__(self) -> Operator:
        """Return a new operator."""
        return self.operator(self.function, *self.arguments)


class CallableProcess:
    """A plain callable `function(value, ctx)` in the place of a `ProcessFunction`."""

    def __init__(self, function: Any) -> None:
        self.process_element = function


class CallablePair:
    """Two plain callables in the place of a function object with a method for each of two inputs."""

    def __init__(self, method: str, first: Any, second: Any) -> None:
        setattr(self, f"{method}1", first)
        setattr(self, f"{method}2", second)


class FirstRecords:
    """A filter that keeps the first records of its subtask and drops the rest.

    After a restart it begins anew, so at least as many come through in all.

    Example:
        >>> list(filter(FirstRecords(2), "abc"))
        ['a', 'b']
    """

    def __init__(self, count: int) -> None:
        self._left = count

    def __call__(self, value: Any) -> bool:
        """Return True the first times."""
        self._left -= 1
        return self._left >= 0
