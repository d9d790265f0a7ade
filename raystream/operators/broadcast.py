"""Operators with a stream and a broadcast stream: the one reads broadcast state, the other writes it.

Every subtask gets every record of the broadcast stream, on input 1, and keeps a copy of the state.
Nothing keeps the subtasks in step: at one moment one has had more of the broadcast records than
another.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from raystream.errors import StateError
from raystream.operators.operator import Emit
from raystream.operators.process import KeyedProcessOperator, ProcessContext, ProcessOperator
from raystream.records.batch import RowBatch
from raystream.state.backend import KeyedStateBackend, MapState
from raystream.state.cursor import NO_KEY_GROUP
from raystream.state.descriptor import MapStateDescriptor, StateDescriptor, StateKind
from raystream.state.operator_lists import BroadcastState, BroadcastStateView

K = TypeVar("K")
V = TypeVar("V")


class ReadOnlyContext(ProcessContext):
    """What `process_element(value, ctx)` gets beside a broadcast stream: it reads broadcast state."""

    __slots__ = ("views",)

    def __init__(self) -> None:
        super().__init__()
        self.views: dict[str, BroadcastStateView[Any, Any]] = {}

    def get_broadcast_state(self, descriptor: MapStateDescriptor[K, V]) -> BroadcastStateView[K, V]:
        """Return the broadcast state of a descriptor, to be read only.

        Raises:
            StateError: `broadcast` was not given this descriptor.
        """
        view = self.views.get(descriptor.name)
        if view is None:
            raise _not_declared(descriptor, self.views)
        return view


class BroadcastContext:
    """What `process_broadcast_element(value, ctx)` gets: it writes broadcast state."""

    def __init__(self, cursor: ReadOnlyContext, states: dict[str, BroadcastState[Any, Any]]) -> None:
        self._cursor = cursor
        self._states = states

    @property
    def timestamp(self) -> int | None:
        """Ms since the epoch, or None when the record has none."""
        return self._cursor.timestamp

    @property
    def current_watermark(self) -> int:
        """Ms since the epoch; the smallest of both streams."""
        return self._cursor.timers.current_watermark

    @property
    def current_processing_time(self) -> int:
        """Wall time in ms since the epoch."""
        return self._cursor.timers.current_processing_time

    def output(self, tag: Any, value: Any) -> None:
        """Emit a record to a side output; every subtask does, for it is called in all of them."""
        self._cursor.output(tag, value)

    def get_broadcast_state(self, descriptor: MapStateDescriptor[K, V]) -> MapState[K, V]:
        """Return the broadcast state of a descriptor.

        Raises:
            StateError: `broadcast` was not given this descriptor.
        """
        state = self._states.get(descriptor.name)
        if state is None:
            raise _not_declared(descriptor, self._states)
        return state


class KeyedBroadcastContext(BroadcastContext):
    """What `process_broadcast_element(value, ctx)` gets beside a keyed stream."""

    def __init__(
        self,
        cursor: ReadOnlyContext,
        states: dict[str, BroadcastState[Any, Any]],
        backend: KeyedStateBackend,
    ) -> None:
        super().__init__(cursor, states)
        self._backend = backend

    def apply_to_keyed_state(
        self, descriptor: StateDescriptor, function: Callable[[Any, Any], object]
    ) -> None:
        """Visit every key of this subtask that has something in a keyed state.

        Args:
            descriptor: of the keyed state.
            function: called with the key and the state, which then is that of the key and may be changed.

        Raises:
            StateError: the name is taken by a state of another kind or type.
        """
        state = _keyed_state(self._backend, descriptor)
        cursor = self._cursor
        try:
            for cursor.group, cursor.current_key, _ in self._backend.entries(descriptor.name):
                function(cursor.current_key, state)
        finally:
            cursor.current_key, cursor.group = None, NO_KEY_GROUP


class BroadcastProcessOperator(ProcessOperator):
    """Calls a `BroadcastProcessFunction`.

    Args:
        descriptors: of the broadcast states.
    """

    cursor_type = ReadOnlyContext
    _cursor: ReadOnlyContext

    def __init__(self, function: Any, descriptors: tuple[MapStateDescriptor[Any, Any], ...]) -> None:
        super().__init__(function)
        self._descriptors = descriptors

    def open(self) -> None:
        store = self.context.operator_store
        states = {descriptor.name: store.broadcast_state(descriptor) for descriptor in self._descriptors}
        self._cursor.views = {name: state.view() for name, state in states.items()}
        self._broadcast_context = self._make_broadcast_context(states)
        super().open()

    def process_broadcast(self, batch: RowBatch) -> None:
        """Handle the records of a batch of the broadcast stream; there is no current key."""
        ctx, call = self._broadcast_context, self._function.process_broadcast_element
        ProcessOperator._run(self, batch, self._guarded(lambda value, _: call(value, ctx), 1))

    @property
    def inputs(self) -> tuple[Emit, ...]:
        return (self.process, self.process_broadcast)

    def _make_broadcast_context(self, states: dict[str, BroadcastState[Any, Any]]) -> BroadcastContext:
        return BroadcastContext(self._cursor, states)


class KeyedBroadcastProcessOperator(BroadcastProcessOperator, KeyedProcessOperator):
    """Calls a `KeyedBroadcastProcessFunction`."""

    def _make_broadcast_context(self, states: dict[str, BroadcastState[Any, Any]]) -> BroadcastContext:
        backend = self.context.keyed_backend
        assert backend is not None, "a keyed operator has a backend"
        return KeyedBroadcastContext(self._cursor, states, backend)


def _keyed_state(backend: KeyedStateBackend, descriptor: StateDescriptor) -> Any:
    registering: dict[StateKind, Callable[[Any], Any]] = {
        StateKind.VALUE: backend.value_state,
        StateKind.LIST: backend.list_state,
        StateKind.MAP: backend.map_state,
        StateKind.REDUCING: backend.reducing_state,
        StateKind.AGGREGATING: backend.aggregating_state,
    }
    return registering[descriptor.kind](descriptor)


def _not_declared(descriptor: MapStateDescriptor[Any, Any], declared: dict[str, Any]) -> StateError:
    return StateError(
        "broadcast state is not declared",
        hint="name its descriptor where the stream is broadcast: rules.broadcast(descriptor)",
        state=descriptor.name,
        declared=sorted(declared),
    )
