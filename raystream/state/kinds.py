"""The five kinds of keyed state, made of the three that a backend stores.

    value         raw value state                   with a time to live: in TtlValueState
    list, map     raw list state, raw map state     with a time to live: in TtlListState, TtlMapState
    reducing,     a value state as above, in FoldedReducingState, FoldedAggregatingState
    aggregating

A backend derives from `StateKinds` and provides the raw states.  Those of a state with a time to live hold
pairs `(written_ms, value)` as their values, elements or map values.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from raystream.clock import ProcessingTime, TimeDomain
from raystream.state.backend import AggregatingState, ListState, MapState, ReducingState, ValueState
from raystream.state.cursor import Cursor, KeyCursor, cursor_of
from raystream.state.descriptor import (
    AggregatingStateDescriptor,
    ListStateDescriptor,
    MapStateDescriptor,
    ReducingStateDescriptor,
    StateDescriptor,
    ValueStateDescriptor,
)
from raystream.state.event_clock import EventClock
from raystream.state.folding_states import FoldedAggregatingState, FoldedReducingState
from raystream.state.registry import StateMatch, StateRegistry
from raystream.state.stored import Stored
from raystream.state.ttl import Expiry, Moment, StateClock, StateTtl
from raystream.state.ttl_states import Lifetime, TtlListState, TtlMapState, TtlValueState

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")
A = TypeVar("A")
R = TypeVar("R")


class StateKinds(ABC):
    """The part of a `KeyedStateBackend` that is alike in all of them."""

    def __init__(self, time: ProcessingTime, cursor: KeyCursor) -> None:
        self._time = time
        self._event_time = EventClock(cursor, time)
        self._cursor = cursor
        self._registry = StateRegistry()

    @property
    def processing_time(self) -> ProcessingTime:
        return self._time

    @property
    def event_time(self) -> EventClock:
        return self._event_time

    def _clock(self, ttl: StateTtl) -> StateClock:
        """Return the time that a time to live goes by."""
        return self._event_time if ttl.time is TimeDomain.EVENT_TIME else self._time

    def _expiry(self, descriptor: StateDescriptor) -> Expiry:
        """Return what decides which values of a state have expired; it is registered, with a time to live."""
        assert descriptor.ttl is not None
        return Expiry(descriptor.ttl, self._clock(descriptor.ttl))

    def _now(self) -> Moment:
        """Return the time of a snapshot that is taken now."""
        return Moment(processing_ms=self._time.now_ms(), event_ms=self._event_time.now_ms())

    def _restored_ms(self, descriptor: StateDescriptor) -> int:
        """Return the time of writing of values that were stored without one that counts."""
        return 0 if descriptor.ttl is None else self._clock(descriptor.ttl).written_ms()

    def _go_on_from(self, snapshots: Iterable[Stored]) -> None:
        """Let time go on from when the restored snapshots were taken."""
        watermarks_ms = []
        for snapshot in snapshots:
            self._time.raise_floor(snapshot.taken_ms)
            watermarks_ms.append(snapshot.watermark_ms)
        self._event_time.restored(watermarks_ms)

    def restored_states(self) -> tuple[StateMatch, ...]:
        return self._registry.matches()

    # ---- kinds ----

    def value_state(self, descriptor: ValueStateDescriptor[T]) -> ValueState[T]:
        return self._single(descriptor, descriptor.fresh_default)

    def list_state(self, descriptor: ListStateDescriptor[T]) -> ListState[T]:
        raw = self._raw_list(descriptor)
        life = self._lifetime(descriptor)
        return raw if life is None else TtlListState(descriptor.name, raw, life)

    def map_state(self, descriptor: MapStateDescriptor[K, V]) -> MapState[K, V]:
        raw = self._raw_map(descriptor)
        life = self._lifetime(descriptor)
        return raw if life is None else TtlMapState(raw, life)

    def reducing_state(self, descriptor: ReducingStateDescriptor[T]) -> ReducingState[T]:
        return FoldedReducingState(descriptor, self._single(descriptor, _nothing))

    def aggregating_state(self, descriptor: AggregatingStateDescriptor[T, A, R]) -> AggregatingState[T, R]:
        return FoldedAggregatingState(descriptor, self._single(descriptor, _nothing))

    def _cursor_of(self, descriptor: StateDescriptor) -> Cursor:
        return cursor_of(self._cursor, namespaced=descriptor.namespaced)

    def _single(self, descriptor: StateDescriptor, fresh_default: Callable[[], Any]) -> ValueState[Any]:
        if descriptor.ttl is None:
            return self._raw_value(descriptor, fresh_default)
        raw = self._raw_value(descriptor, _nothing)
        life = self._lifetime(descriptor)
        assert life is not None
        return TtlValueState(raw, life, fresh_default)

    def _lifetime(self, descriptor: StateDescriptor) -> Lifetime | None:
        if descriptor.ttl is None:
            return None
        return Lifetime(descriptor.ttl, self._expiry(descriptor), self._sweep(descriptor))

    @abstractmethod
    def _raw_value(self, descriptor: StateDescriptor, fresh_default: Callable[[], Any]) -> ValueState[Any]:
        """Register the state if it is new; return its values, reductions or accumulators."""

    @abstractmethod
    def _raw_list(self, descriptor: ListStateDescriptor[Any]) -> ListState[Any]:
        """Register the state if it is new; return its lists."""

    @abstractmethod
    def _raw_map(self, descriptor: MapStateDescriptor[Any, Any]) -> MapState[Any, Any]:
        """Register the state if it is new; return its maps."""

    @abstractmethod
    def _sweep(self, descriptor: StateDescriptor) -> Callable[[], None]:
        """Return what an access to the state calls at its end, to remove expired values of some keys.

        The state is registered and has a time to live.
        """


def _nothing() -> None:
    return None
