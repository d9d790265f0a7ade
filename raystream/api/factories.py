"""How the operators of a plan are made: a class of `raystream.operators` and its argument."""

from dataclasses import dataclass
from typing import Any

from raystream.operators.operator import Operator


@dataclass(frozen=True, slots=True)
class OperatorFactory:
    """Makes an operator around a user's function, source or sink.

    Every call uses the same function object.  A plan that was packed and unpacked
    (`raystream.runtime.program`) makes a new copy of it for each subtask.
    """

    operator: type[Operator]
    function: Any

    def __call__(self) -> Operator:
        """Return a new operator."""
        return self.operator(self.function)  # type: ignore[call-arg]


class CallableProcess:
    """A plain callable `function(value, ctx)` in the place of a `ProcessFunction`."""

    def __init__(self, function: Any) -> None:
        self.process_element = function
