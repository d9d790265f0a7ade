"""The rules of state, one by one, and which test proves which.

Every rule has a short name that stays.  A test says with `row` which rules it proves; their names are in the
test's id.  `rows_of` finds them again, so that a test can find a rule that nobody proves:

    @row("keyed.update-none")
    def test_updating_with_none_clears(self, tell): ...
"""

from collections.abc import Iterable
from typing import Any

import pytest

ROWS: dict[str, str] = {
    # ---- keyed state ----
    "keyed.scope-state": "a value belongs to the name of its state",
    "keyed.scope-key": "a value belongs to its key",
    "keyed.scope-namespace": "an entry of a namespaced state belongs to its key and namespace",
    "keyed.value-default": "a value never set is a fresh copy of the default, or None without one",
    "keyed.update-none": "updating a value with None is clearing it",
    "keyed.list-none": "None as a list or among its elements is an error, and the list is as before",
    "keyed.list-empty": "updating a list with no elements is clearing it; an empty list yields nothing",
    "keyed.map-none": "the value of a map entry may be None",
    "keyed.map-remove": "the current entry may be removed while iterating over a map",
    "keyed.reducing": "the first value of a reduction is stored as it is, later ones are reduced with it",
    "keyed.aggregating": "values are folded into an accumulator, the result is made of it; no values: None",
    "keyed.one-name": "two descriptors of one name that differ in kind or type are an error",
    "keyed.untouched": "a state that is registered and never touched is in the next snapshot",
    "keyed.no-key": "access without a current key is an error that says so",
    "keyed.in-place": "a value changed in place and updated is never seen by a snapshot in progress",
    "keyed.generated-uid": "an operator without uid has one derived from the structure, with a warning",
    "keyed.overlap": "a new subtask reads the overlap of its key groups with those of every stored handle",
    # ---- operator state ----
    "operator.split-same": "split state stays where it is while the parallelism does",
    "operator.split-runs": "split elements are cut in order into runs that differ by one element at most",
    "operator.split-names": "the runs of a name begin at the first subtask that got no extra element",
    "operator.union": "every new subtask gets every element of every old one, at any parallelism",
    "operator.broadcast-copy": "new subtask i gets the copy of the old subtask i modulo the old parallelism",
    "operator.broadcast-missing": "a copy that is missing on some subtasks comes from one that has it",
    "operator.broadcast-write": "broadcast state is written from the broadcast side alone",
    "operator.broadcast-same": "broadcast state is the same on all subtasks",
    "operator.broadcast-keyed": "the broadcast side reaches keyed state by visiting all local keys only",
    "operator.restored": "every kind of operator state comes back after a restore",
    # ---- time to live ----
    "ttl.boundary": "written at w with a time to live t, a value is there before w + t and gone at w + t",
    "ttl.on-create-and-write": "by default a write renews a value, and a read does not",
    "ttl.on-read-and-write": "with on-read-and-write a read renews it too",
    "ttl.never-return-expired": "by default nobody sees an expired value",
    "ttl.return-expired": "where that is allowed, the first read after the end returns a value, once",
    "ttl.list": "a list expires by element",
    "ttl.map": "a map expires by entry",
    "ttl.clean-on-read": "a read removes what it finds expired",
    "ttl.clean-snapshot": "a snapshot leaves out what has expired",
    "ttl.clean-access": "each access cleans up some other keys",
    "ttl.clean-unread": "state that is never read again goes too",
    "ttl.switch-on": "given to a state that exists, the time counts from the restore",
    "ttl.switch-off": "taken from a state that exists, what is alive stays for ever",
    "ttl.event-time": "in event time the watermark says what has expired",
    # ---- timers ----
    "timers.one-each": "there is one timer for each key, namespace and time, however often it is set",
    "timers.domains": "event time and processing time have timers of their own",
    "timers.order": "timers fire in the order of time",
    "timers.restored": "timers are restored, and move with their key group",
    "timers.past": "timers of processing time that came due before a restore fire at once",
    "timers.watermark": "a watermark is forwarded behind what its timers emit",
    "timers.delete-missing": "deleting a timer that is not there does nothing",
}
"""Name of each rule, and what it says."""


def row(*names: str) -> pytest.MarkDecorator:
    """Say which rules a test proves; needs a fixture `row`, which `BackendContract` has.

    Args:
        names: of rules in `ROWS`.
    """
    return pytest.mark.parametrize("row", [pytest.param(names, id="+".join(names))], indirect=True)


def rows_of(tests: Iterable[Any]) -> dict[str, list[str]]:
    """Return the names of the tests that say that they prove a rule, by its name.

    Args:
        tests: test classes, or modules with test functions.
    """
    proofs: dict[str, list[str]] = {}
    for place in tests:
        for name in dir(place):
            for mark in getattr(getattr(place, name), "pytestmark", ()) if name.startswith("test_") else ():
                if mark.args[:1] == ("row",):
                    for proved in mark.args[1][0].values[0]:
                        proofs.setdefault(proved, []).append(f"{place.__name__}.{name}")
    return proofs
