"""Keyed state: what a user function sees of it, and what every state backend provides.

The state objects address the entry of the *current key*: the key of the record that
is being processed.  Outside of that (in `open`, say) every access is a `StateError`.
A value handed out may be changed in place only if it is then passed to `update` (or
`put`); a snapshot in progress never shows such a change.

A snapshot is taken in two parts.  `freeze` marks the state as it is, in a time that does
not depend on how much there is; `advance` encodes it in slices, between batches, while
the job goes on changing it.  Snapshots may overlap, and each shows exactly the state at
its own `freeze`.  What `advance` has made ready is stored in a thread: a blob, and with some
forms files beside it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from raystream.clock import ProcessingTime
from raystream.handles import SharedFile, StateInfo
from raystream.state.chunk_form import Chunk
from raystream.state.descriptor import (
    AggregatingStateDescriptor,
    ListStateDescriptor,
    MapStateDescriptor,
    ReducingStateDescriptor,
    ValueStateDescriptor,
)
from raystream.state.event_clock import EventClock
from raystream.state.registry import StateMatch
from raystream.state.snapshot_files import LocalFile, SnapshotForm
from raystream.state.stored import Stored
from raystream.state.ttl import Moment

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")
A = TypeVar("A")
R = TypeVar("R")
T_contra = TypeVar("T_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)


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


class ReducingState(Protocol[T]):
    """The reduction of all values that were added for the current key; None is not a value."""

    def get(self) -> T | None:
        """Return the reduction, None when nothing was added."""

    def add(self, value: T) -> None:
        """Reduce what there is with a value; the first one is stored as it is.

        Raises:
            StateError: the value or the reduction is None; the state is unchanged.
        """

    def clear(self) -> None:
        """Remove the reduction."""


class AggregatingState(Protocol[T_contra, R_co]):
    """The aggregation of all values that were added for the current key."""

    def get(self) -> R_co | None:
        """Return the result of the accumulator, None when nothing was added."""

    def add(self, value: T_contra) -> None:
        """Fold a value into the accumulator; the first one into a new one.

        Raises:
            StateError: the new accumulator is None; the state is unchanged.
        """

    def clear(self) -> None:
        """Remove the accumulator."""


class KeyedSnapshot(Protocol):
    """The keyed state of one operator subtask at one barrier, being encoded."""

    @property
    def checkpoint_id(self) -> int:
        """The checkpoint it belongs to."""

    @property
    def states(self) -> tuple[StateInfo, ...]:
        """All states that were registered at the barrier, touched or not."""

    @property
    def taken(self) -> Moment:
        """The time of the barrier."""

    @property
    def local_directory(self) -> Path | None:
        """Where local files of the backend are; None when it has no such directory."""

    @property
    def entries(self) -> int | None:
        """Number of (state, key) entries encoded so far; all of them once `blob` has been called.

        None where nobody counts them.
        """

    def advance(self, out_of_time: Callable[[], bool]) -> bool:
        """Work on the snapshot until `out_of_time()`; return True when there is nothing left to do.

        Every call makes some progress, unless local files of an older snapshot are being made: then it
        returns False at once, with time left, and `wait` returns when it is worth calling again.  The work
        between two looks at `out_of_time` is about a millisecond (one entry is never cut, however large).
        Snapshots complete in the order of their `freeze`: the call works on older ones first.

        Raises:
            StateError: a value does not have its declared type or cannot be encoded.  The snapshot
                is lost, the state is not; call `discard`.
        """

    def wait(self) -> None:
        """Return when `advance` can make progress; blocks, and belongs into a thread."""

    def files(self) -> Sequence[LocalFile]:
        """Return the files that belong to the snapshot beside its blob; none when it is full.

        To be called once, when `advance` has returned True; blocks, and belongs into a thread.

        Raises:
            StateError: a value does not have its declared type, or the local disk failed.
        """

    def blob(self) -> Sequence[bytes | memoryview]:
        """Return the encoded state in pieces, as `raystream.state.stored.open_stored` reads it.

        To be called once, after `files`; blocks, and belongs into a thread.

        Raises:
            StateError: a value does not have its declared type, or the local disk failed.
        """

    def chunks(self) -> Iterator[tuple[int, int, Chunk]]:
        """Yield the encoded state in place of `blob`, sorted by key group; only when the form is full.

        To be called once, when `advance` has returned True; blocks, and belongs into a thread.

        Returns:
            Position of the state in `states`, key group and chunk.

        Raises:
            StateError: a value does not have its declared type, or the local disk failed.
        """

    def stored(self, files: dict[str, SharedFile]) -> None:
        """Take note that an incremental snapshot is stored; from any thread.

        Args:
            files: its files by local name.
        """

    def discard(self) -> None:
        """Free what the snapshot holds: it is stored, or given up, perhaps while it is being stored.

        May be called at any time, from the loop or from the thread that stores it, and again.  After it
        `advance` goes on to be called until it returns True: what is kept apart for the snapshot is put
        back in slices too.  (When it is not called, the next snapshot does the work.)
        """


class CacheUse(NamedTuple):
    """How often state was asked for, and not found in the cache in front of it; both grow only."""

    accesses: int
    """One for each record and state."""
    reads: int
    """Of the store behind the cache."""


class KeyedStateBackend(Protocol):
    """Holds the keyed state of one operator subtask, for the key groups it owns.

    Life: `restore` at most once, then the operator registers its states, then `restored_states` must
    show no state that does not fit, and none that is missing in the program (or `drop_unregistered` is
    called), then records.
    """

    @property
    def prefetch(self) -> Callable[[Sequence[Any]], None] | None:
        """What gets ready for a batch with records of some canonical keys, called before the first of them.

        None where there is nothing to do.
        """

    @property
    def cache_use(self) -> CacheUse | None:
        """How well the cache serves; None where all state is in memory."""

    @property
    def processing_time(self) -> ProcessingTime:
        """The wall time that TTL and timers go by; never falls below that of the restored snapshots."""

    @property
    def event_time(self) -> EventClock:
        """The event time that TTL goes by; its owner tells it each watermark whose timers have fired."""

    def restore(self, snapshots: Iterable[Stored]) -> None:
        """Take over stored state; blocks, and belongs into a thread.

        Raises:
            StateCorruptError: a snapshot is damaged.
            StateRestoreError: the snapshots describe one state differently, or are of another backend.
            StateError: the local disk failed, names the path; or the backend was closed meanwhile.
            StorageError: the checkpoint store did not answer.
        """

    def restored_states(self) -> tuple[StateMatch, ...]:
        """Return each state that was restored or is registered, and whether the two fit.

        A state that does not fit can be registered, and is empty; nothing is raised so that all
        that do not fit can be reported at once.
        """

    def drop_unregistered(self) -> tuple[StateInfo, ...]:
        """Forget the restored states that the program has not registered, and return them."""

    def value_state(self, descriptor: ValueStateDescriptor[T]) -> ValueState[T]:
        """Register a value state, or return one that is registered.

        Raises:
            StateError: the name is registered with another kind, type or time to live.
            StateCorruptError: the restored state cannot be decoded.
        """

    def list_state(self, descriptor: ListStateDescriptor[T]) -> ListState[T]:
        """Register a list state, or return one that is registered; raises as `value_state`."""

    def map_state(self, descriptor: MapStateDescriptor[K, V]) -> MapState[K, V]:
        """Register a map state, or return one that is registered; raises as `value_state`."""

    def reducing_state(self, descriptor: ReducingStateDescriptor[T]) -> ReducingState[T]:
        """Register a reducing state, or return one that is registered; raises as `value_state`."""

    def aggregating_state(self, descriptor: AggregatingStateDescriptor[T, A, R]) -> AggregatingState[T, R]:
        """Register an aggregating state, or return one that is registered; raises as `value_state`."""

    def entries(self, name: str) -> Iterator[tuple[int, Any, Any]]:
        """Iterate over all entries of a registered state: key group, key and content.

        Args:
            name: of the state.

        Returns:
            The key is `(key, namespace)` when the state is namespaced.  The content is a value (a
            reduction, an accumulator), a list, or a dict, without what has expired; it must not be
            changed.  Order is unspecified.  The state may be changed meanwhile, which is seen or not.
        """

    def freeze(self, checkpoint_id: int, *, form: SnapshotForm = SnapshotForm.FULL) -> KeyedSnapshot:
        """Return a snapshot of the state as it is now; takes a time that does not depend on its size.

        Args:
            checkpoint_id: what it is for.
            form: what the snapshot is to consist of; a backend without files makes a blob of any.
        """

    def checkpoint_completed(self, checkpoint_id: int) -> None:
        """A checkpoint is complete: newer snapshots may refer to its files."""

    def close(self) -> None:
        """Let go of what is outside of memory; the backend is not used again, its snapshots end.

        A restore that is under way in a thread ends soon; whichever of the two ends last lets go.
        """
