"""The classes that a job's functions may derive from.

Wherever an operation takes a function it takes a plain callable too; a class is for
functions that need `open` (state, connections, models) or a context.  An instance is
made once, in the script, and copied to every subtask before `open` is called there, so
what cannot be copied (connections, locks) is created in `open`.

The methods are called by the operators in `raystream.operators`, which know them by name.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Generic, TypeVar

from raystream.operators.timers import optional

if TYPE_CHECKING:
    from raystream.operators.process import ProcessContext
    from raystream.operators.user_code import RuntimeContext

T = TypeVar("T")
U = TypeVar("U")
A = TypeVar("A")


class Function(ABC):  # noqa: B024 - its subclasses have the abstract methods
    """Base of all function classes; not for direct use."""

    def open(self, ctx: "RuntimeContext") -> None:  # noqa: B027 - overriding is optional
        """Prepare this subtask's copy: called once in the subtask, before the first record.

        Args:
            ctx: the place of the subtask in the job, and its state.
        """

    def close(self) -> None:  # noqa: B027
        """Free what `open` took; called once after the last record, also after a failure."""


class MapFunction(Function, Generic[T, U]):
    """Makes one record out of each.

    Example:
        >>> class Scale(MapFunction):
        ...     def __init__(self, factor):
        ...         self.factor = factor
        ...     def map(self, value):
        ...         return value * self.factor
        >>> Scale(10).map(7)
        70
    """

    @abstractmethod
    def map(self, value: T) -> U:
        """Return the record that takes the place of `value`."""


class FlatMapFunction(Function, Generic[T, U]):
    """Makes any number of records out of each.

    Example:
        >>> class Words(FlatMapFunction):
        ...     def flat_map(self, value):
        ...         yield from value.split()
        >>> list(Words().flat_map("to be or not"))
        ['to', 'be', 'or', 'not']
    """

    @abstractmethod
    def flat_map(self, value: T) -> Iterable[U] | None:
        """Yield the records that take the place of `value`, or return them; None stands for none.

        What is returned is iterated to its end, and an iterator ends with a StopIteration: a bare `next(...)`
        inside a `map(...)` that is returned ends it early, without an error.  In a generator it is one.
        """


class FilterFunction(Function, Generic[T]):
    """Keeps some records and drops the others.

    Example:
        >>> class AtLeast(FilterFunction):
        ...     def __init__(self, least):
        ...         self.least = least
        ...     def filter(self, value):
        ...         return value >= self.least
        >>> AtLeast(3).filter(2)
        False
    """

    @abstractmethod
    def filter(self, value: T) -> bool:
        """Return True to keep the record."""


class ReduceFunction(Function, Generic[T]):
    """Combines two records of one key into one of the same type.

    Example:
        >>> class Longest(ReduceFunction):
        ...     def reduce(self, first, second):
        ...         return max(first, second, key=len)
        >>> Longest().reduce("stream", "job")
        'stream'
    """

    @abstractmethod
    def reduce(self, first: T, second: T) -> T:
        """Return the combination of what was reduced so far with the next record."""


class AggregateFunction(Function, Generic[T, A, U]):
    """Folds the records of one key into an accumulator, which stands for a result.

    Also the function of an `AggregatingStateDescriptor`, where `open` and `close` are not called.

    Example:
        >>> class Mean(AggregateFunction):
        ...     def create_accumulator(self):
        ...         return 0, 0
        ...     def add(self, value, accumulator):
        ...         return accumulator[0] + value, accumulator[1] + 1
        ...     def get_result(self, accumulator):
        ...         return accumulator[0] / accumulator[1]
        ...     def merge(self, first, second):
        ...         return first[0] + second[0], first[1] + second[1]
        >>> Mean().get_result(Mean().add(3, Mean().create_accumulator()))
        3.0
    """

    @abstractmethod
    def create_accumulator(self) -> A:
        """Return an accumulator of no records."""

    @abstractmethod
    def add(self, value: T, accumulator: A) -> A:
        """Return the accumulator with one more record; it may be the given one, changed in place."""

    @abstractmethod
    def get_result(self, accumulator: A) -> U:
        """Return what the accumulator stands for; must not change it."""

    @abstractmethod
    def merge(self, first: A, second: A) -> A:
        """Return the accumulator of the records of both; either may be changed in place."""


class ProcessFunction(Function, Generic[T, U]):
    """Handles each record with a context, through which side outputs are reached.

    **A record must not change once it is emitted**, whether it was yielded or put out with
    `ctx.output`, nor may what it contains: its receiver gets the object itself, later, when the
    batch is done.  `yield self.batch` followed by `self.batch.clear()` loses records, without an
    error; yield a copy, or make a new list.  With `pipeline.copy-records: true` each record is
    copied in the moment in which it is yielded, which takes time, and then all of this is allowed.

    Example:
        >>> class Divide(ProcessFunction):
        ...     def process_element(self, value, ctx):
        ...         if value % 2:
        ...             ctx.output("odd", value)
        ...         else:
        ...             yield value // 2
        >>> list(Divide().process_element(8, ctx=None))
        [4]
    """

    @abstractmethod
    def process_element(self, value: T, ctx: "ProcessContext") -> Iterable[U] | None:
        """Yield the records that follow from `value`, or return them as an iterable, or return None."""


class TimerFunction(Function, Generic[U]):
    """Base of the function classes that have timers; not for direct use."""

    @optional
    def on_timer(self, timestamp: int, ctx: "ProcessContext") -> Iterable[U] | None:
        """Handle a timer that was set with `ctx.timers`; yields as `process_element` does.

        State and `ctx.current_key` are those of the key that the timer was set for.  What a timer of event
        time yields has the timer's timestamp, what one of processing time yields has none.

        Args:
            timestamp: time of the timer, in ms since the epoch.
            ctx: as in `process_element`; `ctx.timestamp` is the timer's time too, and `ctx.time_domain`
                says which time it goes by.
        """


class KeyedProcessFunction(ProcessFunction[T, U], TimerFunction[U]):
    """Handles each record of a keyed stream with the state of its key.

    State is registered in `open` and belongs, in `process_element`, to `ctx.current_key`.

    **A record must not change once it is emitted** (see `ProcessFunction`), so a list, dict or
    object that is kept in state and changed later must not be yielded itself: yield a copy of it,
    `ctx.current_key, list(seen)`.  `pipeline.copy-records: true` does it for you.

    Example:
        >>> from raystream import ValueStateDescriptor
        >>> class Count(KeyedProcessFunction):
        ...     def open(self, ctx):
        ...         self.seen = ctx.get_state(ValueStateDescriptor("seen", int, default=0))
        ...     def process_element(self, value, ctx):
        ...         seen = self.seen.value() + 1
        ...         self.seen.update(seen)
        ...         yield ctx.current_key, seen
    """
