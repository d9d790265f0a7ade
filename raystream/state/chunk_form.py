"""Chunks: many entries (key and content) of one state as one piece of msgpack.

    chunk   := [keys, contents] | [keys, contents, times]     arrays of one length, encoded by one C call
    content := value                     value, reduction or accumulator
             | [element, ...]            list state
             | {map key: value, ...}     map state
    time    := ms | [ms, ...]            of writing: of the value, of each element, of each map value in order

The *form*, one byte beside each chunk, says how to read it, so that a chunk whose keys are
all `str` (or all `int`) is written natively, and whatever else there is still finds a form:

    bits 0-1   keys: 0 str, 1 int, 2 bytes of `raystream.keys.encode_key`
    bit 2      values: 0 plain, 1 wide (`raystream.state.serializer`)
    bits 3-4   map keys: as keys; 0 where there is no map
    bit 5      the times are of event time
    bit 7      there are times; set in states with a time to live

Every key is stored in full and in canonical form; the key of a namespaced state is the pair of
key and namespace.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from raystream.clock import TimeDomain
from raystream.state.descriptor import StateKind
from raystream.state.ttl import StateTtl

KEYS_STR, KEYS_INT, KEYS_ENCODED = 0, 1, 2
KEY_MASK = 0b11
_KEY_TYPES: dict[int, type] = {KEYS_STR: str, KEYS_INT: int, KEYS_ENCODED: bytes}
WIDE = 1 << 2
MAP_KEY_SHIFT = 3
BY_EVENT_TIME = 1 << 5
TIMED = 1 << 7
TIMES = BY_EVENT_TIME | TIMED
FORM_MASK = KEY_MASK | WIDE | KEY_MASK << MAP_KEY_SHIFT | TIMES


@dataclass(frozen=True, slots=True)
class Chunk:
    """Encoded entries; `form` is needed to read `data`."""

    form: int
    entries: int
    data: bytes


def timed_form(ttl: StateTtl | None) -> int:
    """Return the bits that say of which time a state with this time to live stores times, if any."""
    return 0 if ttl is None else timed_form_of(ttl.time)


def timed_form_of(domain: TimeDomain) -> int:
    """Return the bits that say that there are times, and of which time they are."""
    return TIMED | (BY_EVENT_TIME if domain is TimeDomain.EVENT_TIME else 0)


def map_form(form: int) -> int:
    """Return how the map keys of a chunk are written, in the terms of bits 0-1."""
    return form >> MAP_KEY_SHIFT & KEY_MASK


def chunk_type(form: int, kind: StateKind, plain: Any) -> Any:
    """Return the type by which msgspec reads a chunk, or None when its form is not defined.

    Args:
        form: of the chunk.
        kind: of its state.
        plain: type of values in the plain form; None when there are none.
    """
    keys, map_keys = _KEY_TYPES.get(form & KEY_MASK), _KEY_TYPES.get(map_form(form))
    content: Any = bytes if form & WIDE else plain
    if form & ~FORM_MASK or keys is None or map_keys is None or content is None:
        return None
    if kind is StateKind.LIST:
        content = list[content]
    elif kind is StateKind.MAP:
        content = dict[map_keys, content]  # type: ignore[valid-type]  # built at run time
    if not form & TIMED:
        return tuple[list[keys], list[content]]  # type: ignore[valid-type]
    times: Any = int if kind.single else list[int]
    return tuple[list[keys], list[content], list[times]]  # type: ignore[valid-type]


def key_form(found: set[type]) -> int:
    """Return the form for keys of these types."""
    return KEYS_STR if found == {str} else KEYS_INT if found == {int} else KEYS_ENCODED


def mapped(
    entries: dict[Any, Any], key: Callable[[Any], Any] | None, value: Callable[[Any], Any] | None
) -> dict[Any, Any]:
    """Return a dict with functions applied to its keys and values; None leaves them as they are."""
    if key is None and value is None:
        return entries
    keys = entries if key is None else map(key, entries)
    values = entries.values() if value is None else map(value, entries.values())
    return dict(zip(keys, values, strict=True))
