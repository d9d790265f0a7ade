"""Removes expired values from the tables of the heap backend, some keys for each access.

All keys of a key group are noted at once, then looked at a few at a time, group after group, round
and round, as long as a round can find anything.  A table that is frozen is passed over: the snapshot removes
what it finds expired.
"""

from typing import Any

from raystream.keygroup import KeyGroupRange
from raystream.state.heap_tables import Table, TableList
from raystream.state.ttl import Expiry, SweepRounds, unexpired

STEP_KEYS = 64
"""Accesses save up keys until there are this many to look at, since one step of many costs far less than
many steps of one."""


class HeapSweep:
    """The clean-up of one state with a time to live; called at the end of each access."""

    __slots__ = ("_credit", "_expiry", "_group", "_groups", "_keys", "_keys_per_call", "_rounds", "_tables")

    def __init__(self, tables: TableList, groups: KeyGroupRange, expiry: Expiry, keys_per_call: int) -> None:
        self._tables = tables
        self._groups = groups
        self._group = groups.stop
        """The group that is looked at; behind the last one there is no round."""
        self._rounds = SweepRounds(expiry)
        self._expiry = expiry
        self._keys_per_call = keys_per_call
        self._keys: list[Any] = []
        """Keys of the group that are still to be looked at."""
        self._credit = 0
        """Number of keys that accesses have saved up."""

    def __call__(self) -> None:
        """Look at some keys and remove what has expired."""
        self._credit += self._keys_per_call
        if self._credit >= STEP_KEYS:
            if self._rounds.due:
                self._step()
            self._credit = 0

    def _step(self) -> None:
        cutoff_ms = self._expiry.cutoff_ms()
        while self._credit > 0:
            if not self._keys:
                self._credit -= 1  # So that a step ends also when all groups are empty.
                if not self._next_group():
                    return
                continue
            keys = self._keys[-self._credit :]
            del self._keys[-len(keys) :]
            self._credit -= len(keys)
            self._trim(keys, cutoff_ms)

    def _next_group(self) -> bool:
        """Go on with the next group; return False when the round is over."""
        if self._group == self._groups.stop:
            self._rounds.begun()
            self._group = self._groups.start
        else:
            self._group += 1
        if self._group == self._groups.stop:
            self._rounds.ended()
            return False
        table = self._tables[self._group]
        self._keys = list(table) if type(table) is Table else []
        return True

    def _trim(self, keys: list[Any], cutoff_ms: int) -> None:
        table = self._tables[self._group]
        if type(table) is not Table:
            return
        for key in keys:
            content = table[key]
            if type(content) is tuple:
                if content[0] <= cutoff_ms:
                    del table[key]
                else:
                    self._rounds.seen(content[0])
            elif content is not None:
                left = unexpired(content, cutoff_ms)
                _trim_items(table, key, content, left)
                if left is not None:
                    self._rounds.seen(
                        min(pair[0] for pair in (left if type(left) is list else left.values()))
                    )


def _trim_items(table: Table, key: Any, content: list[Any] | dict[Any, Any], left: Any) -> None:
    """Put what is left of a list or map in its place; None is nothing."""
    if left is content:
        return
    if left is None:
        del table[key]
    # Changed in place, for whoever iterates over it.
    content.clear()
    if isinstance(content, list):
        content.extend(left or ())
    else:
        content.update(left or {})
