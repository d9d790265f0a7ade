"""What every operation of a stream takes beside its function, and how functions are checked."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NotRequired, TypedDict

from raystream.api.functions import Function
from raystream.errors import GraphError
from raystream.graph.logical import ChainHint, OperatorKind, Upstream, is_text
from raystream.graph.slot_sharing import SlotSharingGroup, as_group
from raystream.operators.operator import Operator


class OperatorOptions(TypedDict, total=False):
    """Keyword arguments of every operation that makes an operator."""

    name: str | None
    """What people see in plans, errors and metrics; need not be unique."""
    uid: str | None
    """Under what name state is stored: unique in the job, and the same in later versions of it."""
    parallelism: int | None
    """Number of subtasks; the environment's by default."""
    max_parallelism: int | None
    """Number of key groups, the bound of any later parallelism; the environment's by default."""
    chain: Literal["always", "head", "never"]
    """Whether the operator is fused with its neighbours, begins a chain, or stands alone."""
    slot_sharing_group: SlotSharingGroup | str | None
    """The group in whose slots it runs, or the group's name; by default that of its inputs."""
    on_error: Literal["fail", "dead-letter"]
    """What becomes of a record on which the function raises: it fails the job, or is left out and comes
    with the error as a `DeadLetter` in `dead_letters()`.  Operators with a function only."""


class NewOperator(TypedDict):
    """What an operation says about the operator that it makes."""

    kind: OperatorKind
    operation: str
    """Name of the method, as the user wrote it."""
    name: str
    """Name of the operator where the user gives none."""
    factory: Callable[[], Operator]
    stateful: bool
    options: OperatorOptions
    transactional: NotRequired[bool]
    """Of a sink: whether it commits; False by default."""
    upstreams: NotRequired[tuple[Upstream, ...]]
    """What it reads; the stream's own outputs by default."""


def chain_hint(options: OperatorOptions, operation: str) -> ChainHint:
    """Return the hint that the options hold, after a check of their names and of the hint.

    Raises:
        TypeError: a keyword that no operation has.
        GraphError: `chain=` is none of its words.
    """
    for keyword in options:
        if keyword not in OperatorOptions.__annotations__:
            raise TypeError(f"{operation}() got an unexpected keyword argument {keyword!r}")
    try:
        return ChainHint(options.get("chain", "always"))
    except ValueError:
        raise GraphError(
            "chain= is none of its words",
            hint='write chain="always", "head" or "never"',
            operation=operation,
            chain=options.get("chain"),
        ) from None


def sharing_group(options: OperatorOptions) -> SlotSharingGroup | None:
    """Return the slot-sharing group that the options hold, if any.

    Raises:
        GraphError: it is neither a group nor a name.
    """
    given = options.get("slot_sharing_group")
    return None if given is None else as_group(given)


def makes_dead_letters(options: OperatorOptions, operation: str, kind: OperatorKind) -> bool:
    """Return whether the options ask for dead letters.

    Raises:
        GraphError: `on_error=` is none of its words, or the operator has no function.
    """
    on_error = options.get("on_error", "fail")
    if on_error not in ("fail", "dead-letter"):
        raise GraphError(
            "on_error= is none of its words",
            hint='write on_error="fail" or "dead-letter"',
            operation=operation,
            on_error=on_error,
        )
    if on_error == "dead-letter" and not kind.has_function:
        raise GraphError(
            "dead letters of an operator without a function",
            hint="say on_error= where the function is: map(...), process(...) and so on",
            operation=operation,
        )
    return on_error == "dead-letter"


def checked_name(options: OperatorOptions, operation: str, default: str) -> str:
    """Return the name of the operator.

    Raises:
        GraphError: the name is not a text, or is empty.
    """
    name = options.get("name")
    if name is None:
        return default
    if not is_text(name):
        raise GraphError("name of an operator is not a text", operation=operation, name=name)
    return name


@dataclass(frozen=True, slots=True)
class FunctionUse:
    """What one operation accepts as its function."""

    operation: str
    """Name of the method, as the user wrote it."""
    accepts: tuple[type[Function], ...]
    """Function classes whose instances it takes."""
    returns_record: bool = False
    """The return value of the function is itself a record or a truth value."""
    takes_callables: bool = True
    """A plain callable will do too."""

    def check(self, function: Any) -> None:
        """Accept an instance of one of the classes, or a plain callable where that will do.

        Raises:
            GraphError: anything else; the hint says what to write instead.
        """
        if isinstance(function, self.accepts):
            return
        if isinstance(function, Function):
            raise self._refusal("function does not fit the operation", function, self._instead_of(function))
        if inspect.isclass(function) and issubclass(function, Function):
            raise self._refusal(
                "function is a class, not an instance", function, f"write {function.__name__}()"
            )
        if not self.takes_callables:
            names = " or ".join(accepted.__name__ for accepted in self.accepts)
            raise self._refusal("function is a plain one", function, f"derive a class from {names}")
        if not callable(function):
            raise self._refusal("function cannot be called", function, "pass a function, not its result")
        if inspect.iscoroutinefunction(function):
            raise self._refusal("function is a coroutine", function, "write it without `async`")
        if self.returns_record and inspect.isgeneratorfunction(function):
            raise self._refusal(
                "function is a generator where one value is expected",
                function,
                "return the value, or use flat_map(...) to emit several",
            )

    def _instead_of(self, function: Function) -> str:
        for base in type(function).__mro__:
            if base.__name__ in _OPERATIONS:
                return f"a {base.__name__} goes to {_OPERATIONS[base.__name__]}"
        return "derive the class from " + " or ".join(accepted.__name__ for accepted in self.accepts)

    def _refusal(self, message: str, function: Any, hint: str) -> GraphError:
        return GraphError(message, hint=hint, operation=self.operation, function=describe(function))


_OPERATIONS = {
    "MapFunction": "map(...)",
    "FlatMapFunction": "flat_map(...)",
    "FilterFunction": "filter(...)",
    "ReduceFunction": "reduce(...) of a keyed stream",
    "AggregateFunction": "aggregate(...) of a keyed stream",
    "CoMapFunction": "map(...) of connected streams",
    "CoFlatMapFunction": "flat_map(...) of connected streams",
    "KeyedCoProcessFunction": "process(...) of two connected keyed streams",
    "CoProcessFunction": "process(...) of connected streams",
    "BroadcastProcessFunction": "process(...) of stream.connect(rules.broadcast(descriptor))",
    "KeyedBroadcastProcessFunction": "process(...) of keyed.connect(rules.broadcast(descriptor))",
    "KeyedProcessFunction": "process(...) of a keyed stream: call key_by(...) first",
    "ProcessFunction": "process(...)",
}


def describe(function: Callable[..., Any] | Function | object) -> str:
    """Return how people name a function: its name, or the name of its class.

    Example:
        >>> describe(len), describe(lambda value: value), describe(41)
        ('len', '<lambda>', '41')
    """
    if isinstance(function, Function):
        return type(function).__name__
    name = getattr(function, "__name__", None)
    return name if isinstance(name, str) else repr(function)[:80]


def default_name(operation: str, function: Callable[..., Any] | Function) -> str:
    """Return the name of an operator that was given none.

    Example:
        >>> default_name("map", len), default_name("map", lambda value: value)
        ('map(len)', 'map')
    """
    name = describe(function)
    return f"{operation}({name})" if name.isidentifier() else operation
