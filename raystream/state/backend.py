"""Keyed state: what a user function sees of it, and what every state backend provides.

The three state objects address the entry of the *current key*: the key of the record that
is being processed.  Outside of that (in `open`, say) every access is a `StateError`.
A value handed out may be changed in place only if it is then passed to `update` (or
`put`); a snapshot in progress never shows such a change.

A snapshot is taken in two parts.  `freeze` marks the state as it is, in a time that does
not depend on how much there is; `advance` encodes it in slices, between batches, while
the job goes on changing it.  Snapshots may overlap, and each shows exactly the state at
its own `freeze`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol, TypeVar

from raystream.handles import StateInfo
from raystream.state.descriptor import ListStateDescriptor, MapStateDescriptor, ValueStateDescriptor
from raystream.state.snapshot_format import LoadedSnapshot

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")


class ValueState(Protocol[T]):
    """One value for the current key."""

    def value(self) -> T | None:
        """Return the value; when none is set a fresh copy of the descriptor's default, else None."""

    def update(self, value: T | None) -> None:
        """Set the value; None is the same as `clear`."""

    def clear(self) -> None:
        """Remove the value."""


class ListState(Protocol[T]):
    """A list of elements for the current key; None is not an element."""

    def get(self) -> list[T]:
        """Return the elements in order, as a new list; empty when there are none."""

    def add(self, element: T) -> None:
        """Append an element.

        Raises:
            StateError: it is None.
        """

    def add_all(self, elements: Iterable[T]) -> None:
        """Append elements, all or none.

        Raises:
            StateError: one of them is None, or `elements` itself is.
        """

    def update(self, elements: Iterable[T]) -> None:
        """Replace all elements; no elements is the same as `clear`.

        Raises:
            StateError: one of them is None, or `elements` itself is.
        """

    def clear(self) -> None:
        """Remove all elements."""


class MapState(Protocol[K, V]):
    """A map for the current key; its values may be None.

    Map keys are of the types that keys of a stream may have, and come back in canonical form
    (`1` for `True`); another type is a `KeyTypeError`.  The order of iteration is unspecified.
    While iterating, the entry that was just returned may be removed or replaced.
    """

    def get(self, key: K, default: V | None = None) -> V | None:
        """Return the value of a map key, else `default`."""

    def put(self, key: K, value: V | None) -> None:
        """Set the value of a map key."""

    def put_all(self, entries: Mapping[K, V | None] | Iterable[tuple[K, V | None]]) -> None:
        """Set the values of several map keys, all or none."""

    def remove(self, key: K) -> None:
        """Remove a map key; one that is not there is left alone."""

    def contains(self, key: K) -> bool:
        """Return whether the map key is there; also `key in state`."""

    def items(self) -> Iterator[tuple[K, V | None]]:
        """Return an iterator over the entries, to be used within the same record."""

    def keys(self) -> Iterator[K]:
        """Return an iterator over the map keys; also `iter(state)`."""

    def values(self) -> Iterator[V | None]:
        """Return an iterator over the values."""

    def is_empty(self) -> bool:
        """Return whether there is no entry."""

    def clear(self) -> None:
        """Remove all entries."""

    def __getitem__(self, key: K) -> V | None:
        """Return the value of a map key.

        Raises:
            KeyError: it is not there.
        """

    def __setitem__(self, key: K, value: V | None) -> None:
        """Do as `put`."""

    def __delitem__(self, key: K) -> None:
        """Remove a map key.

        Raises:
            KeyError: it is not there.
        """

    def __contains__(self, key: object) -> bool:
        """Do as `contains`."""

    def __iter__(self) -> Iterator[K]:
        """Do as `keys`."""

    def __len__(self) -> int:
        """Return the number of entries."""


class KeyedSnapshot(Protocol):
    """The keyed state of one operator subtask at one barrier, being encoded."""

    @property
    def checkpoint_id(self) -> int:
        """The checkpoint it belongs to."""

    @property
    def states(self) -> tuple[StateInfo, ...]:
        """All states that were registered at the barrier, touched or not."""

    @property
    def entries(self) -> int:
        """Number of (state, key) entries encoded so far."""

    def advance(self, out_of_time: Callable[[], bool]) -> bool:
        """Work on the snapshot until `out_of_time()`; return True when there is nothing left to do.

        Every call makes some progress; the work between two looks at `out_of_time` is about a millisecond
        (one entry is never cut, however large).  Snapshots complete in the order of their `freeze`:
        the call works on older ones first.

        Raises:
            StateError: a value does not have its declared type or cannot be encoded.  The snapshot
                is lost, the state is not; call `discard`.
        """

    def blob(self) -> list[bytes]:
        """Return the encoded state in pieces, in the format of `raystream.state.snapshot_format`.

        To be called once, when `advance` has returned True.
        """

    def discard(self) -> None:
        """Give the snapshot up; no-op when it is complete.

        `advance` goes on to be called until it returns True: what is kept apart for the snapshot is put
        back in slices too.  (When it is not called, the next snapshot does the work.)
        """


class KeyedStateBackend(Protocol):
    """Holds the keyed state of one operator subtask, for the key groups it owns.

    Life: `restore` at most once, then the operator registers its states, then
    `unregistered_states` must be empty (or `drop_unregistered` is called), then records.
    """

    def restore(self, snapshots: Iterable[LoadedSnapshot]) -> None:
        """Take over stored state; each state is decoded when it is registered.

        Raises:
            StateRestoreError: the snapshots describe one state differently.
        """

    def unregistered_states(self) -> tuple[StateInfo, ...]:
        """Return the restored states that the program has not registered."""

    def drop_unregistered(self) -> tuple[StateInfo, ...]:
        """Forget the restored states that the program has not registered, and return them."""

    def value_state(self, descriptor: ValueStateDescriptor[T]) -> ValueState[T]:
        """Register a value state, or return one that is registered.

        Raises:
            StateError: the name is registered with another kind or type.
            StateRestoreError: the restored state of this name does not fit the descriptor.
            StateCorruptError: the restored state cannot be decoded.
        """

    def list_state(self, descriptor: ListStateDescriptor[T]) -> ListState[T]:
        """Register a list state, or return one that is registered; raises as `value_state`."""

    def map_state(self, descriptor: MapStateDescriptor[K, V]) -> MapState[K, V]:
        """Register a map state, or return one that is registered; raises as `value_state`."""

    def freeze(self, checkpoint_id: int) -> KeyedSnapshot:
        """Return a snapshot of the state as it is now; takes time per key group, not per entry."""
