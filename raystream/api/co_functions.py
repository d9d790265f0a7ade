"""The classes for functions of connected streams, which have two inputs.

The first input is the stream on which `connect` was called.  In which order records of different
inputs come is not defined: a function that has to see one of them first keeps the other in state.
"""

from abc import abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Generic, TypeVar

from raystream.api.functions import Function, TimerFunction

if TYPE_CHECKING:
    from raystream.operators.broadcast import BroadcastContext, KeyedBroadcastContext, ReadOnlyContext
    from raystream.operators.process import ProcessContext

T1 = TypeVar("T1")
T2 = TypeVar("T2")
U = TypeVar("U")


class CoMapFunction(Function, Generic[T1, T2, U]):
    """Makes one record out of each record of either input.

    Example:
        >>> class Texts(CoMapFunction):
        ...     def map1(self, value):
        ...         return str(value)
        ...     def map2(self, value):
        ...         return value.strip()
        >>> Texts().map1(7), Texts().map2(" 7 ")
        ('7', '7')
    """

    @abstractmethod
    def map1(self, value: T1) -> U:
        """Return the record that takes the place of a record of the first input."""

    @abstractmethod
    def map2(self, value: T2) -> U:
        """Return the record that takes the place of a record of the second input."""


class CoFlatMapFunction(Function, Generic[T1, T2, U]):
    """Makes any number of records out of each record of either input.

    Example:
        >>> class Words(CoFlatMapFunction):
        ...     def flat_map1(self, value):
        ...         yield from value.split()
        ...     def flat_map2(self, value):
        ...         return value
        >>> list(Words().flat_map1("to be")), Words().flat_map2(["or"])
        (['to', 'be'], ['or'])
    """

    @abstractmethod
    def flat_map1(self, value: T1) -> Iterable[U] | None:
        """Yield or return the records that follow from one of the first input; None stands for none."""

    @abstractmethod
    def flat_map2(self, value: T2) -> Iterable[U] | None:
        """Yield or return the records that follow from one of the second input; None stands for none."""


class CoProcessFunction(Function, Generic[T1, T2, U]):
    """Handles each record of either input with a context, through which side outputs are reached.

    Example:
        >>> class Merge(CoProcessFunction):
        ...     def process_element1(self, value, ctx):
        ...         yield "order", value
        ...     def process_element2(self, value, ctx):
        ...         yield "payment", value
        >>> list(Merge().process_element2(3, ctx=None))
        [('payment', 3)]
    """

    @abstractmethod
    def process_element1(self, value: T1, ctx: "ProcessContext") -> Iterable[U] | None:
        """Yield or return the records that follow from one of the first input, or return None."""

    @abstractmethod
    def process_element2(self, value: T2, ctx: "ProcessContext") -> Iterable[U] | None:
        """Yield or return the records that follow from one of the second input, or return None."""


class KeyedCoProcessFunction(CoProcessFunction[T1, T2, U], TimerFunction[U]):
    """Handles each record of two keyed streams with the state of its key, which both inputs share.

    Example:
        >>> from raystream import ValueStateDescriptor
        >>> class Join(KeyedCoProcessFunction):
        ...     def open(self, ctx):
        ...         self.order = ctx.get_state(ValueStateDescriptor("order"))
        ...     def process_element1(self, order, ctx):
        ...         self.order.update(order)
        ...     def process_element2(self, payment, ctx):
        ...         if self.order.value() is not None:
        ...             yield self.order.value(), payment
    """


class BroadcastProcessFunction(Function, Generic[T1, T2, U]):
    """Handles each record of a stream with broadcast state at hand, which the records of another one write.

    Example:
        >>> from raystream import MapStateDescriptor
        >>> rules = MapStateDescriptor("rules", str, int)
        >>> class Filter(BroadcastProcessFunction):
        ...     def process_element(self, value, ctx):
        ...         if value["size"] > ctx.get_broadcast_state(rules).get(value["path"], 0):
        ...             yield value
        ...     def process_broadcast_element(self, value, ctx):
        ...         path, least = value
        ...         ctx.get_broadcast_state(rules).put(path, least)
    """

    @abstractmethod
    def process_element(self, value: T1, ctx: "ReadOnlyContext") -> Iterable[U] | None:
        """Yield or return the records that follow from one of the stream; `ctx` reads broadcast state."""

    @abstractmethod
    def process_broadcast_element(self, value: T2, ctx: "BroadcastContext") -> Iterable[U] | None:
        """Take in a record of the broadcast stream, in every subtask; `ctx` writes broadcast state.

        What it writes must follow from the broadcast records alone, so that all copies are the same.
        Records that it yields come once from every subtask.
        """


class KeyedBroadcastProcessFunction(TimerFunction[U], Generic[T1, T2, U]):
    """Like `BroadcastProcessFunction` on a keyed stream: `process_element` has the state of its key.

    Example:
        >>> from raystream import MapStateDescriptor, ValueStateDescriptor
        >>> resets = MapStateDescriptor("resets", str, int)
        >>> hits = ValueStateDescriptor("hits", int, default=0)
        >>> class Count(KeyedBroadcastProcessFunction):
        ...     def open(self, ctx):
        ...         self.hits = ctx.get_state(hits)
        ...     def process_element(self, value, ctx):
        ...         self.hits.update(self.hits.value() + 1)
        ...         yield ctx.current_key, self.hits.value()
        ...     def process_broadcast_element(self, value, ctx):
        ...         ctx.apply_to_keyed_state(hits, lambda key, state: state.update(value))
    """

    @abstractmethod
    def process_element(self, value: T1, ctx: "ReadOnlyContext") -> Iterable[U] | None:
        """Yield or return the records that follow from one of the keyed stream."""

    @abstractmethod
    def process_broadcast_element(self, value: T2, ctx: "KeyedBroadcastContext") -> Iterable[U] | None:
        """Take in a record of the broadcast stream, in every subtask; there is no current key.

        `ctx.apply_to_keyed_state` is the only way from here to keyed state.
        """
