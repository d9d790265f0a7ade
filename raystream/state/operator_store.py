"""The operator state of one subtask: registers it, restores it, encodes it at a barrier.

An element of the stored list (`raystream.state.operator_state`) is

    list, union    one element of the user: a byte that says the form, then a chunk
                   (`raystream.state.chunk_form`) of one entry, so that types are checked and evolve
                   as those of keyed state
    broadcast      the whole map, or the part of it that has one form, likewise
    raw            the user's bytes as they are
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, ClassVar, TypeVar, cast

from raystream.errors import StateCorruptError, StateError, StateRestoreError
from raystream.handles import Redistribution, StateInfo
from raystream.state.chunk_codec import ChunkCodec
from raystream.state.chunk_decoder import ChunkDecoder
from raystream.state.chunk_form import Chunk
from raystream.state.descriptor import ListStateDescriptor, MapStateDescriptor, StateDescriptor, StateKind
from raystream.state.operator_lists import BroadcastState, OperatorListState, RawState
from raystream.state.operator_state import OperatorState
from raystream.state.registry import StateMatch, StateRegistry

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")


class OperatorStateKind(StrEnum):
    """Kinds of operator state, as in `StateInfo.kind`."""

    LIST = "operator-list"
    UNION = "operator-union"
    BROADCAST = "operator-broadcast"
    RAW = "operator-raw"

    @property
    def mode(self) -> Redistribution:
        """How it is dealt out when the parallelism changes."""
        return _MODES[self]


_MODES = {
    OperatorStateKind.LIST: Redistribution.SPLIT,
    OperatorStateKind.UNION: Redistribution.UNION,
    OperatorStateKind.BROADCAST: Redistribution.BROADCAST,
    OperatorStateKind.RAW: Redistribution.SPLIT,
}


def declared_operator_state(kind: OperatorStateKind, descriptor: StateDescriptor) -> StateInfo:
    """Return what a snapshot stores about operator state that a program declares."""
    info = replace(descriptor.info(), kind=kind.value)
    return replace(info, serializer="raw-1") if kind is OperatorStateKind.RAW else info


@dataclass(frozen=True)
class _Declaration(StateDescriptor):
    """A descriptor of keyed state, used for operator state of some kind."""

    kind: ClassVar[StateKind] = StateKind.LIST

    operator_kind: OperatorStateKind
    inner: StateDescriptor

    @property
    def declared(self) -> tuple[Any, ...]:
        return (self.operator_kind.value, *self.inner.declared)

    def info(self) -> StateInfo:
        return declared_operator_state(self.operator_kind, self.inner)


@dataclass(frozen=True, slots=True)
class _Registered:
    """One registered state and how it becomes elements."""

    declaration: _Declaration
    state: OperatorListState[Any] | BroadcastState[Any, Any]
    codec: ChunkCodec | None

    def elements(self) -> list[bytes]:
        state = self.state
        if self.codec is None:
            return cast(RawState, state).get()
        if isinstance(state, BroadcastState):
            return _encode(self.codec, dict(state.items()))
        return [data for element in state.get() for data in _encode(self.codec, [element])]


class OperatorStore:
    """Holds the operator state of one operator subtask.

    Life: states are registered, which gives them what was restored; then `restored_states` must show
    none that does not fit, and none that is missing in the program (or `drop_unregistered` is called).

    Args:
        restored: elements by name of state; what raystream keeps for itself may be among them.
        stored: the states that the snapshot describes, of any kind.
        is_restored: the operator was in the snapshot that the job started from.
    """

    def __init__(
        self,
        restored: Mapping[str, list[bytes]] | None = None,
        stored: Iterable[StateInfo] = (),
        *,
        is_restored: bool = False,
    ) -> None:
        self.is_restored = is_restored
        self._restored = dict(restored or {})
        self._registry = StateRegistry()
        self._registered: dict[str, _Registered] = {}
        for info in stored:
            if info.kind in set(OperatorStateKind):
                elements = self._restored.get(info.name, [])
                self._registry.stored(info, entries=len(elements), size_bytes=sum(map(len, elements)))

    def list_state(self, descriptor: ListStateDescriptor[T], *, union: bool = False) -> OperatorListState[T]:
        """Register a list state, or return the one that is registered.

        Args:
            descriptor: name and type of the elements.
            union: at a restore every subtask gets the elements of all.

        Raises:
            StateError: the name is registered with another kind or type, or the state has a time to live.
            StateRestoreError: stored elements cannot be read as the declared type.
        """
        kind = OperatorStateKind.UNION if union else OperatorStateKind.LIST
        state: OperatorListState[T] = self._register(kind, descriptor)
        return state

    def raw_state(self, name: str) -> RawState:
        """Register a list of bytes that are stored as they are, or return the one that is registered.

        Raises:
            StateError: the name is registered as another kind of state.
        """
        state: RawState = self._register(OperatorStateKind.RAW, ListStateDescriptor(name, bytes))
        return state

    def broadcast_state(self, descriptor: MapStateDescriptor[K, V]) -> BroadcastState[K, V]:
        """Register a broadcast map, or return the one that is registered; raises as `list_state`."""
        state: BroadcastState[K, V] = self._register(OperatorStateKind.BROADCAST, descriptor)
        return state

    def registered_broadcast(self, name: str) -> BroadcastState[Any, Any] | None:
        """Return a broadcast map that is registered."""
        known = self._registered.get(name)
        return known.state if known is not None and isinstance(known.state, BroadcastState) else None

    def restored_states(self) -> tuple[StateMatch, ...]:
        """Return each state that was restored or is registered, and whether the two fit."""
        return self._registry.matches()

    def drop_unregistered(self) -> tuple[StateInfo, ...]:
        """Forget the restored states that the program has not registered, and return them."""
        return self._registry.drop_unregistered()

    def snapshot(self) -> list[OperatorState]:
        """Return the elements of all registered states as they are now.

        Raises:
            StateError: an element does not have its declared type or cannot be encoded.
        """
        return [
            OperatorState(
                name=name,
                mode=known.declaration.operator_kind.mode,
                elements=known.elements(),
                info=known.declaration.info(),
            )
            for name, known in self._registered.items()
        ]

    def _register(self, kind: OperatorStateKind, descriptor: StateDescriptor) -> Any:
        if descriptor.ttl is not None:
            raise StateError(
                "operator state has no time to live",
                hint="leave ttl= out, and remove elements yourself",
                state=descriptor.name,
            )
        declaration = _Declaration(descriptor.name, kind, descriptor, migrate=descriptor.migrate)
        if not self._registry.registered(declaration):
            codec = None if kind is OperatorStateKind.RAW else ChunkCodec(descriptor)
            state = _state(kind, descriptor.name, self._take_restored(declaration))
            self._registered[descriptor.name] = _Registered(declaration, state, codec)
        return self._registered[descriptor.name].state

    def _take_restored(self, declaration: _Declaration) -> list[Any]:
        """Register a state and return what was restored for it: bytes if it is raw, else lists or maps."""
        stored = self._registry.register(declaration)
        elements = self._restored.pop(declaration.name, [])
        if stored is None:
            return []
        if declaration.operator_kind is OperatorStateKind.RAW:
            return elements
        try:
            decoder = ChunkDecoder(declaration.inner, stored)
            return [_decode(declaration.name, decoder, element) for element in elements]
        except StateRestoreError as error:
            self._registry.refuse(declaration.name, str(error).splitlines()[0])
            return []


def _state(
    kind: OperatorStateKind, name: str, restored: list[Any]
) -> OperatorListState[Any] | BroadcastState[Any, Any]:
    match kind:
        case OperatorStateKind.RAW:
            return RawState(name, restored)
        case OperatorStateKind.BROADCAST:
            return BroadcastState(name, {key: value for part in restored for key, value in part.items()})
        case OperatorStateKind.LIST | OperatorStateKind.UNION:
            return OperatorListState(name, [value for part in restored for value in part])


def _encode(codec: ChunkCodec, content: Any) -> list[bytes]:
    return [bytes((chunk.form,)) + chunk.data for chunk in codec.encode([0], [content])]


def _decode(name: str, decoder: ChunkDecoder, element: bytes) -> Any:
    if not element:
        raise StateCorruptError("element of operator state is empty", state=name)
    _, (content,) = decoder.decode(Chunk(element[0], 1, element[1:]))
    return content
