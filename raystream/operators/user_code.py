"""Calls into user functions: what they are given and how their exceptions are reported."""

import traceback
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, NoReturn, TypeVar

from raystream.errors import RaystreamError, StateError, UserCodeError
from raystream.operators.operator import OperatorContext
from raystream.state.backend import (
    AggregatingState,
    KeyedStateBackend,
    ListState,
    MapState,
    ReducingState,
    ValueState,
)
from raystream.state.descriptor import (
    AggregatingStateDescriptor,
    ListStateDescriptor,
    MapStateDescriptor,
    ReducingStateDescriptor,
    StateDescriptor,
    StateKind,
    ValueStateDescriptor,
)

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")
A = TypeVar("A")
R = TypeVar("R")

_REPR_CHARACTERS_MAX = 200


class EscapedError(Exception):
    """Stands for what was raised and is no `Exception`, where only an `Exception` can be handed on.

    User code calls `sys.exit`, is cancelled by its own event loop, or panics in an extension module: in
    a thread of ours each of these is an error like any other, and not the end of the thread.
    """

    def __init__(self, original: BaseException) -> None:
        super().__init__(said(original))
        self.original = original


def as_exception(error: BaseException) -> Exception:
    """Return the error itself if it is an `Exception`, else one that stands for it."""
    if isinstance(error, Exception):
        return error
    escaped = EscapedError(error)
    escaped.__cause__ = error
    return escaped


def said(error: BaseException) -> str:
    """Return type and message of an error; of any, also when its `__str__` raises."""
    name = type(error).__name__
    try:
        return f"{name}: {error}"
    except BaseException as own:
        return f"{name} whose message raised {type(own).__name__}"


class RuntimeContext:
    """What a function's `open(ctx)` gets: its place in the job and its state.

    Attributes:
        subtask_index: 0-based index of this subtask.
        parallelism: number of subtasks of the operator.
        max_parallelism: number of key groups.
        attempt: number of this execution of the job, from 1.
        uid: uid of the operator.
        job_id: id of the job, 32 hex digits.
        metrics: counters, gauges, meters and histograms of this subtask, `raystream.metrics.user`.
    """

    __slots__ = (
        "_context", "attempt", "job_id", "max_parallelism", "metrics", "parallelism", "subtask_index", "uid",
    )  # fmt: skip

    def __init__(self, context: OperatorContext) -> None:
        self._context = context
        self.subtask_index = context.subtask
        self.parallelism = context.parallelism
        self.max_parallelism = context.max_parallelism
        self.attempt = context.attempt
        self.uid = context.uid
        self.job_id = context.job_id
        self.metrics = context.metrics

    def get_state(self, descriptor: ValueStateDescriptor[T]) -> ValueState[T]:
        """Return the value state of this descriptor.

        Raises:
            StateError: the stream is not keyed, the descriptor is one of another kind of state, or the name
                is taken by another kind or type.
        """
        return self._backend_for(descriptor, ValueStateDescriptor).value_state(descriptor)

    def get_list_state(self, descriptor: ListStateDescriptor[T]) -> ListState[T]:
        """Return the list state of this descriptor; errors as for `get_state`."""
        return self._backend_for(descriptor, ListStateDescriptor).list_state(descriptor)

    def get_map_state(self, descriptor: MapStateDescriptor[K, V]) -> MapState[K, V]:
        """Return the map state of this descriptor; errors as for `get_state`."""
        return self._backend_for(descriptor, MapStateDescriptor).map_state(descriptor)

    def get_reducing_state(self, descriptor: ReducingStateDescriptor[T]) -> ReducingState[T]:
        """Return the reducing state of this descriptor; errors as for `get_state`."""
        return self._backend_for(descriptor, ReducingStateDescriptor).reducing_state(descriptor)

    def get_aggregating_state(
        self, descriptor: AggregatingStateDescriptor[T, A, R]
    ) -> AggregatingState[T, R]:
        """Return the aggregating state of this descriptor; errors as for `get_state`."""
        return self._backend_for(descriptor, AggregatingStateDescriptor).aggregating_state(descriptor)

    def _backend_for(self, descriptor: object, kind: type[StateDescriptor]) -> KeyedStateBackend:
        """Return what keeps the state, once the descriptor is found to be one of this kind."""
        if not isinstance(descriptor, kind):
            raise StateError(
                f"state is declared with a descriptor of another kind: it takes a {kind.__name__}",
                hint=_method_hint(descriptor),
                given=type(descriptor).__name__,
                operator=self._context.name,
            )
        backend = self._context.keyed_backend
        if backend is None:
            raise StateError(
                "keyed state needs a keyed stream",
                hint="call key_by(...) before the operator that uses the state",
                operator=self._context.name,
            )
        return backend


def _method_hint(descriptor: object) -> str:
    """Return which method takes the descriptor."""
    if not isinstance(descriptor, StateDescriptor):
        return 'give a descriptor with a name and a type, such as ValueStateDescriptor("seen", int)'
    method = "get_state" if descriptor.kind is StateKind.VALUE else f"get_{descriptor.kind.value}_state"
    return f"call {method}(...) for it"


class FunctionAdapter:
    """A user's function in another shape: what a subclass does not define is the function's own."""

    def __init__(self, function: Any) -> None:
        self._function = function

    def __getattr__(self, name: str) -> Any:
        return getattr(self._function, name)


def callable_of(function: Any, method: str) -> Callable[..., Any]:
    """Return the method of a function object, or the plain callable itself."""
    bound: Callable[..., Any] = getattr(function, method, function)
    return bound


def open_function(function: Any, context: OperatorContext) -> None:
    """Call the function's `open`, if it has one.

    Raises:
        UserCodeError: the user's `open` raised.
    """
    opener = getattr(function, "open", None)
    if opener is None or not hasattr(function, "close"):
        return
    try:
        opener(RuntimeContext(context))
    except RaystreamError:
        raise
    except BaseException as error:
        raise _user_code_error("user function failed to open", error, context) from error


def close_function(function: Any) -> None:
    """Call the function's `close`, if it is a function object."""
    if hasattr(function, "open") and hasattr(function, "close"):
        function.close()


def raise_for_record(error: BaseException, context: OperatorContext, record: Any) -> NoReturn:
    """Raise the error that names operator, subtask and record of a failed user function.

    Raises:
        UserCodeError: always, from `error`.
    """
    failure = _user_code_error("user function raised", error, context)
    failure.context["record"] = cut_repr(record)
    raise failure from error


def raise_for_timer(
    error: BaseException, context: OperatorContext, key: Any, time_ms: int | None
) -> NoReturn:
    """Raise the error that names operator, subtask, key and time of a failed `on_timer`.

    Raises:
        UserCodeError: always, from `error`.
    """
    failure = _user_code_error("user function raised on a timer", error, context)
    failure.context["key"] = cut_repr(key)
    failure.context["time_ms"] = time_ms
    raise failure from error


def call_for_each(call: Callable[[Any], Any], values: list[Any], context: OperatorContext) -> list[Any]:
    """Return what a user function makes of each record, `[call(v) for v in values]`, with the loop in C.

    Raises:
        UserCodeError: the function raised; names the record.
    """
    records = iter(values)
    try:
        results = list(map(call, records))
    except BaseException as error:
        raise_for_record(error, context, _record_at(records, values))
    if len(results) != len(values):
        # `map` takes a StopIteration of the function, from a bare `next(...)` say, for its own end.
        raise_for_record(StopIteration(), context, _record_at(records, values))
    return results


def raise_for_connector(message: str, error: BaseException, context: OperatorContext) -> NoReturn:
    """Raise the error of a source or sink: its own if it has a clear one, else one that names the operator.

    Raises:
        RaystreamError: always.
    """
    if isinstance(error, RaystreamError):
        raise error
    raise _user_code_error(message, error, context) from error


def _record_at(iterator: Iterator[Any], values: list[Any]) -> Any:
    """Return the record that a consumer of `iter(values)` took last.

    A list iterator knows how much of its list is left, so the record on which a
    C-level loop failed is known without counting in the loop.
    """
    position = len(values) - iterator.__length_hint__() - 1  # type: ignore[attr-defined]
    return values[position] if 0 <= position < len(values) else None


def cut_repr(record: Any) -> str:
    """Return the record's repr, cut at 200 characters."""
    try:
        text = repr(record)
    except BaseException as error:
        return f"<{type(record).__name__} whose repr raised {type(error).__name__}>"
    return text if len(text) <= _REPR_CHARACTERS_MAX else text[:_REPR_CHARACTERS_MAX] + "..."


def _user_code_error(message: str, error: BaseException, context: OperatorContext) -> UserCodeError:
    if isinstance(error, EscapedError):
        error = error.original
    return UserCodeError(
        message,
        hint=error.hint if isinstance(error, RaystreamError) else "",
        operator=context.name,
        uid=context.uid,
        subtask=context.subtask,
        cause=said(error),
        traceback=users_traceback(error),
    )


def users_traceback(error: BaseException) -> str:
    """Return an error as Python prints it, without the frames of raystream that lead to the user's code."""
    return "".join(traceback.format_exception(type(error), error, _users_frames(error)))


def _users_frames(error: BaseException) -> TracebackType | None:
    """Return the error's traceback without the frames of raystream that lead to the user's code."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_globals.get("__name__", "").startswith("raystream."):
        frames = frames.tb_next
    return frames or error.__traceback__
