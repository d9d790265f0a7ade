"""The dicts of the heap backend: tables, guards, and overlays above frozen tables.

A state has a *table list* with one table for each key group.  A table maps a key to its
content (value, list or dict), never to None, and a missing key reads as None.  At a barrier the
table of each group is frozen by putting an empty overlay in its place, in the same list:

    tables[group] ──> Overlay 2     written to now
                        │ below
                      Overlay 1     frozen by the newer of two snapshots
                        │ below
                      Table         frozen by the older one, being encoded

What a key holds is what the first layer from above says; None in an overlay means removed.
When the older snapshot has encoded the table, Overlay 1 is folded into it, which makes it
the state that the newer snapshot froze, and so on down to one table again.

User code may change in place what it is handed, so nothing that is frozen is handed out:
at the first access the frozen content is encoded where it lies (it would have to be anyway)
and the live object moves up to the top.  Values that nobody can change are shared instead.
"""

from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from raystream.errors import StateError
from raystream.keygroup import KeyGroupRange
from raystream.state.chunk_codec import EncodedContent
from raystream.state.immutable import IMMUTABLE_TYPES, immutable

FOLD_ENTRIES_MAX = 8192
"""Entries that are folded into a table between two looks at the clock."""

TableList = list["Table"]


class Table(dict[Any, Any]):
    """Contents of one key group by canonical key."""

    __slots__ = ()

    def __missing__(self, key: Any) -> Any:
        return None

    def discard(self, key: Any) -> Any:
        """Remove a key; return its content when nothing frozen refers to it, else None."""
        return self.pop(key, None)


class Overlay(Table):
    """What has changed since the tables below it were frozen."""

    __slots__ = ("_encode", "below", "holes")

    def __init__(self, below: Table, encode: Callable[[Any], EncodedContent]) -> None:
        super().__init__()
        self.below = below
        self.holes = False
        """True when it may hold None for a removed key."""
        self._encode = encode

    def __missing__(self, key: Any) -> Any:
        layer = self.below
        while isinstance(layer, Overlay) and key not in layer:
            layer = layer.below
        content = layer.get(key)
        if type(content) in IMMUTABLE_TYPES or immutable(content):
            return content
        # An encoded content is never met here: a live one for its key is in a layer above it.
        layer[key] = self._encode(content)
        self[key] = content
        return content

    def discard(self, key: Any) -> Any:
        content = self.get(key)
        self[key] = None
        self.holes = True
        return content


class Guard(Table):
    """Stands where no entry may be read or written; every access is an error."""

    __slots__ = ("_hint", "_message")

    def __init__(self, message: str, hint: str) -> None:
        super().__init__()
        self._message = message
        self._hint = hint

    def __missing__(self, key: Any) -> Any:
        self.refuse(key)

    def __setitem__(self, key: Any, content: Any) -> None:
        self.refuse(key)

    def discard(self, key: Any) -> Any:
        self.refuse(key)

    def refuse(self, key: Any) -> NoReturn:
        """Raise the error."""
        raise StateError(self._message, hint=self._hint, key=key)


_NO_KEY = Guard(
    "keyed state was accessed without a current key",
    "use it while a record of a keyed stream is processed, not in open, close or a broadcast side",
)
_NOT_OWNED = Guard(
    "keyed state was accessed in a key group of another subtask",
    "records must reach a keyed operator through key_by",
)


def table_list(groups: KeyGroupRange, max_parallelism: int) -> TableList:
    """Return empty tables for the owned key groups, guards for the others and at index -1."""
    tables: TableList = [_NOT_OWNED] * max_parallelism
    for group in groups:
        tables[group] = Table()
    tables.append(_NO_KEY)
    return tables


def live_entries(table: Table) -> list[tuple[Any, Any]]:
    """Return key and content of every entry of a group, as it is now; nothing may be changed in place."""
    if not isinstance(table, Overlay):
        return list(table.items())
    layers = [table]
    while isinstance(layers[-1], Overlay):
        layers.append(layers[-1].below)  # type: ignore[arg-type]  # the last one is no overlay
    merged: dict[Any, Any] = {}
    for layer in reversed(layers):
        merged.update(layer)
    return [(key, content) for key, content in merged.items() if content is not None]


def freeze_table(tables: TableList, group: int, encode: Callable[[Any], EncodedContent]) -> bool:
    """Freeze the table of a group; return False when it is empty, so that there is nothing to freeze."""
    table = tables[group]
    if not table and type(table) is Table:
        return False
    tables[group] = Overlay(table, encode)
    return True


def lowest_table(tables: TableList, group: int) -> Table:
    """Return the table below all overlays."""
    table = tables[group]
    while isinstance(table, Overlay):
        table = table.below
    return table


def fold_lowest_overlay(tables: TableList, group: int) -> Iterator[None]:
    """Fold the lowest overlay into the table below it; yields where the work may be interrupted.

    The table holds every entry throughout, so entries may be read and written meanwhile.
    """
    overlay, _ = _lowest_overlay(tables, group)
    table = overlay.below
    while len(overlay) > FOLD_ENTRIES_MAX:
        for _ in range(FOLD_ENTRIES_MAX):
            key, content = overlay.popitem()
            if content is None:
                table.pop(key, None)
            else:
                table[key] = content
        yield
    if overlay.holes:
        for key in [key for key, content in overlay.items() if content is None]:
            del overlay[key]
            table.pop(key, None)
    table.update(overlay)
    _, above = _lowest_overlay(tables, group)
    if above is None:
        tables[group] = table
    else:
        above.below = table


def _lowest_overlay(tables: TableList, group: int) -> tuple[Overlay, Overlay | None]:
    """Return the lowest overlay and the one above it."""
    above, overlay = None, tables[group]
    assert isinstance(overlay, Overlay)
    while isinstance(overlay.below, Overlay):
        above, overlay = overlay, overlay.below
    return overlay, above
