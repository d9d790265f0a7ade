"""What changed from one snapshot to another: which entries of which states.

    snapshot a ──▶ chunks of key groups 0, k, 2k, ...  ─┐
                                                       ├─▶ digest of each entry, compared ──▶ next class
    snapshot b ──▶ chunks of the same                  ─┘

Both are read in the order of classes of key groups: with one max parallelism a class is one key group.  With
two, `a` and `b`, keys of a group can only be in groups with the same remainder by their greatest common
divisor, which make a class.  At most one class of one operator of one snapshot is held: its encoded keys and
16 bytes for each.  So keys are never hashed anew, and values never decoded or unpickled: they are the same
when they are stored alike.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby

from raystream.handles import Redistribution, StateInfo
from raystream.ids import OperatorUid
from raystream.keys import Key
from raystream.savepoint.snapshot import SnapshotReader
from raystream.state.chunk_entries import entry_digests, key_of
from raystream.state.chunk_form import Chunk
from raystream.state.descriptor import StateKind
from raystream.state.rocksdb_chunks import ChunkItems
from raystream.state.snapshot_format import StoredChunk

Digests = dict[str, dict[bytes, int]]
"""Digest by encoded key, by name of the state."""


@dataclass(slots=True, kw_only=True)
class StateDifference:
    """How one state differs.

    Attributes:
        uid: of its operator.
        state: its name.
        before: its declaration in the first snapshot; None when it is not there.
        after: in the second one.
        added: number of keys (with their namespaces) that are only in the second snapshot.
        removed: that are only in the first.
        changed: that are in both with other values.
        unchanged: that are in both with the same values.
        keys: some of those that differ, each behind `added`, `removed` or `changed`.
    """

    uid: str
    state: str
    before: StateInfo | None
    after: StateInfo | None
    added: int = 0
    removed: int = 0
    changed: int = 0
    unchanged: int = 0
    keys: list[tuple[str, Key]] = field(default_factory=list)

    @property
    def declaration(self) -> dict[str, tuple[object, object]]:
        """What of the declaration changed: the field, before and after."""
        if self.before is None or self.after is None:
            return {}
        return {
            name: (getattr(self.before, name), getattr(self.after, name))
            for name in ("kind", "serializer", "schema", "map_key_schema", "namespaced")
            if getattr(self.before, name) != getattr(self.after, name)
        }

    @property
    def same(self) -> bool:
        """True when nothing differs."""
        there = self.before is not None and self.after is not None
        return there and not (self.added or self.removed or self.changed or self.declaration)


def differences(
    first: SnapshotReader, second: SnapshotReader, *, keys_max: int = 0
) -> Iterator[StateDifference]:
    """Yield how each state of two snapshots differs, operator by operator.

    Args:
        first: the one before.
        second: the one after.
        keys_max: how many keys of each state are told at most.

    Raises:
        StateCorruptError: a snapshot is damaged; the error names the file.
        StorageError: the store did not answer.
    """
    for uid in dict.fromkeys(op.uid for reader in (first, second) for op in reader.metadata.operators):
        yield from _compared(uid, _Side(first, uid), _Side(second, uid), keys_max)


class _Side:
    """One of the two snapshots, as far as one operator goes."""

    def __init__(self, reader: SnapshotReader, uid: OperatorUid) -> None:
        self.reader = reader
        self.operator = reader.metadata.operator(uid)
        self.keyed = {} if self.operator is None else reader.keyed_states(self.operator)
        self.infos = {name: state.info for name, state in self.keyed.items()}

    def classes(self, step: int) -> Iterator[tuple[int, Digests]]:
        """Yield the digests of each class of key groups that has entries, in order."""
        operator = self.operator
        if operator is None or not self.keyed:
            return
        if step == operator.max_parallelism:
            for group, of_group in groupby(self.reader.chunks(operator), lambda one: one[1].group):
                yield group, _digests(of_group)
            return
        for remainder in range(step):
            groups = range(remainder, operator.max_parallelism, step)
            if found := _digests(self.reader.chunks(operator, groups=groups)):
                yield remainder, found

    def elements(self) -> tuple[dict[str, StateInfo | None], dict[str, Counter[bytes]]]:
        """Return the operator states by name: what they are, and how often each element is there.

        Of a broadcast map these are its entries, of one copy.
        """
        infos: dict[str, StateInfo | None] = {}
        found: dict[str, Counter[bytes]] = {}
        for one in self.reader.elements(self.operator) if self.operator is not None else ():
            name, elements = one.handle.name, one.elements
            if one.handle.mode is Redistribution.BROADCAST and one.info is not None:
                if found.get(name):
                    continue
                elements = list(_broadcast_entries(one.info, elements))
            infos[name] = one.info
            found.setdefault(name, Counter()).update(elements)
        return infos, found


def _compared(uid: OperatorUid, first: _Side, second: _Side, keys_max: int) -> Iterator[StateDifference]:
    found = {
        name: StateDifference(uid=uid, state=name, before=first.infos.get(name), after=second.infos.get(name))
        for name in dict.fromkeys([*first.infos, *second.infos])
    }
    step = math.gcd(*(side.operator.max_parallelism for side in (first, second) if side.operator))
    for before, after in _joined(first.classes(step), second.classes(step)):
        for name in dict.fromkeys([*before, *after]):
            _compare(found[name], before.get(name, {}), after.get(name, {}), keys_max)
    yield from found.values()
    yield from _compared_elements(uid, first, second)


def _compare(
    found: StateDifference, before: dict[bytes, int], after: dict[bytes, int], keys_max: int
) -> None:
    """Count the entries of one class of one state."""
    added = sorted(after.keys() - before.keys())
    removed = sorted(before.keys() - after.keys())
    changed = sorted(key for key, digest in after.items() if before.get(key, digest) != digest)
    found.added += len(added)
    found.removed += len(removed)
    found.changed += len(changed)
    found.unchanged += len(after) - len(added) - len(changed)
    info = found.after or found.before
    assert info is not None, "a state is in one of the snapshots"
    told = [("added", key) for key in added] + [("removed", key) for key in removed]
    told += [("changed", key) for key in changed]
    found.keys += [(what, key_of(key, info)) for what, key in told[: keys_max - len(found.keys)]]


def _compared_elements(uid: OperatorUid, first: _Side, second: _Side) -> Iterator[StateDifference]:
    """Yield how operator state differs: by its elements, whichever subtask has them."""
    infos_before, before = first.elements()
    infos_after, after = second.elements()
    for name in dict.fromkeys([*before, *after]):
        old, new = before.get(name, Counter()), after.get(name, Counter())
        if not (old or new or infos_before.get(name) or infos_after.get(name)):
            continue  # A savepoint has no file for nothing.
        yield StateDifference(
            uid=uid,
            state=name,
            before=infos_before.get(name) or (_own(name) if name in before else None),
            after=infos_after.get(name) or (_own(name) if name in after else None),
            added=(new - old).total(),
            removed=(old - new).total(),
            unchanged=(new & old).total(),
        )


def _own(name: str) -> StateInfo:
    """Return what stands for the description of state that raystream itself keeps."""
    return StateInfo(name=name, kind="operator-own", serializer="", schema="")


def _broadcast_entries(info: StateInfo, elements: Iterable[bytes]) -> Iterator[bytes]:
    for element in elements:
        as_map = replace(info, kind=StateKind.MAP.value)
        for _, suffix, item in ChunkItems(Chunk(element[0], 1, element[1:]), as_map):
            yield suffix + item


def _digests(chunks: Iterable[tuple[StateInfo, StoredChunk]]) -> Digests:
    found: Digests = {}
    for info, stored in chunks:
        found.setdefault(info.name, {}).update(entry_digests(stored.chunk, info))
    return found


def _joined(
    first: Iterator[tuple[int, Digests]], second: Iterator[tuple[int, Digests]]
) -> Iterator[tuple[Digests, Digests]]:
    """Yield what both have of each class that one of them has."""
    before, after = next(first, None), next(second, None)
    while before is not None or after is not None:
        at = min(one[0] for one in (before, after) if one is not None)
        old: Digests = {}
        new: Digests = {}
        if before is not None and before[0] == at:
            old, before = before[1], next(first, None)
        if after is not None and after[0] == at:
            new, after = after[1], next(second, None)
        yield old, new
