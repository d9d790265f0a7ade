"""What `raystream state` prints: states, entries and differences, as tables and as JSON."""

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from raystream.cli.attend import say
from raystream.cli.listing import print_table, shown_time, visible
from raystream.cli.progress import short_size
from raystream.errors import StateRestoreError
from raystream.keys import Key
from raystream.savepoint.difference import StateDifference
from raystream.savepoint.key_literals import key_as_json
from raystream.savepoint.opened import Operator, Savepoint, State
from raystream.savepoint.rows import as_json, values_of
from raystream.savepoint.sizes import StateSize
from raystream.state.canonical_keys import key_text, read_keys
from raystream.state.canonical_rows import DOMAIN, MAP_KEY, NAMESPACE, POSITION, TIME, WRITTEN

if TYPE_CHECKING:
    import pyarrow as pa

KEYS_IN_HINT_MAX = 3


def listing(savepoint: Savepoint, *, sizes: bool) -> dict[str, Any]:
    """Return what `ls` shows, as JSON has it.

    Args:
        savepoint: open.
        sizes: read what the indexes do not tell.
    """
    return {
        "path": savepoint.path,
        "kind": savepoint.kind,
        "job_id": savepoint.job_id,
        "job_name": savepoint.job_name,
        "checkpoint_id": savepoint.checkpoint_id,
        "created_ms": savepoint.created_ms,
        "size_bytes": savepoint.size_bytes,
        "operators": [_operator(operator, sizes=sizes) for operator in savepoint.operators()],
    }


def _operator(operator: Operator, *, sizes: bool) -> dict[str, Any]:
    counted = operator.count() if sizes else {}
    return {
        "uid": operator.uid,
        "uid_generated": operator.uid_generated,
        "name": operator.name,
        "parallelism": operator.parallelism,
        "max_parallelism": operator.max_parallelism,
        "states": [
            _state(state, counted.get(state.name) if state.keyed else None) for state in operator.states
        ],
    }


def _state(state: State, counted: StateSize | None) -> dict[str, Any]:
    entries, size_bytes = state.entries, state.size_bytes
    if counted is not None:
        entries = counted.entries
        size_bytes = counted.size_bytes if size_bytes is None else size_bytes
    groups = state.key_groups
    return {
        "name": state.name,
        "kind": state.kind,
        "type": state.type,
        "map_key_type": state.map_key_type,
        "namespaced": state.namespaced,
        "entries": entries,
        "size_bytes": size_bytes,
        "key_groups": None if groups is None else [groups.start, groups.stop],
        "largest_keys": [
            {"key": large.text, "size_bytes": large.size_bytes}
            for large in (counted.largest if counted is not None else ())
        ],
    }


def print_listing(found: dict[str, Any]) -> None:
    """Print what `listing` returned."""
    say(
        f"{found['kind']} {found['checkpoint_id']} of job {found['job_name']!r} ({found['job_id'][:8]}),"
        f" {shown_time(found['created_ms'])}, {short_size(found['size_bytes'])}"
    )
    states = [(operator, state) for operator in found["operators"] for state in operator["states"]]
    if not states:
        say("no operator has state")
        return
    print_table(
        ("uid", "operator", "state", "kind", "type", "entries", "size", "key groups"),
        (
            (
                operator["uid"], operator["name"], state["name"], state["kind"], _type(state),
                _number(state["entries"]), _size(state["size_bytes"]), _groups(state["key_groups"]),
            )
            for operator, state in states
        ),
        numbers=frozenset({"entries", "size"}),
    )  # fmt: skip
    largest = [
        (operator["uid"], state["name"], key["key"], short_size(key["size_bytes"]))
        for operator, state in states
        for key in state["largest_keys"]
    ]
    if largest:
        print()
        print_table(("uid", "state", "largest keys", "size"), largest, numbers=frozenset({"size"}))


def _type(state: dict[str, Any]) -> str:
    text = state["type"] or "pickle"
    return f"{state['map_key_type']} -> {text}" if state["map_key_type"] else text


def _number(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


def _size(size_bytes: int | None) -> str:
    return "-" if size_bytes is None else short_size(size_bytes)


def _groups(groups: Sequence[int] | None) -> str:
    return "-" if groups is None else f"{groups[0]}-{groups[1] - 1}"


# ---- one key --------------------------------------------------------------------


def entry(state: State, key: Key, rows: "pa.Table") -> dict[str, Any]:
    """Return what `get` shows of the rows of a key, as JSON has it."""
    columns: dict[str, Sequence[Any]] = {}
    for name in (NAMESPACE, MAP_KEY):
        if name in rows.column_names:
            columns[name] = list(map(key_as_json, read_keys(name, rows)))
    for name in (POSITION, TIME, DOMAIN, WRITTEN):
        if name in rows.column_names:
            columns[name] = rows.column(name).to_pylist()
    if "value" in rows.column_names:
        columns["value"] = list(map(as_json, values_of(rows)))
    return {
        "uid": state.uid,
        "state": state.name,
        "kind": state.kind,
        "type": state.type,
        "key": key_as_json(key),
        "key_group": rows.column("key_group")[0].as_py(),
        "rows": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)],
    }


def print_entry(found: dict[str, Any]) -> None:
    """Print the values of what `entry` returned, a line each, behind what tells them apart."""
    for row in found["rows"]:
        shown = [_line(value) for name, value in row.items() if name not in (POSITION, WRITTEN, DOMAIN)]
        print("\t".join(shown))


def _line(value: Any) -> str:
    return visible(json.dumps(value, ensure_ascii=False))


def missing_key(state: State, key: Key) -> StateRestoreError:
    """Return the error about a key that a state does not have; it shows how its keys look."""
    there = [key_text(one) for one in state.some_keys(KEYS_IN_HINT_MAX)]
    hint = "the state has no entries"
    if there:
        hint = f"its keys look like {', '.join(there)}"
        if any(not text.startswith(("'", '"')) for text in there):
            hint += "; give --literal to write a key like that"
    return StateRestoreError(
        "state has no entry of this key", hint=hint, uid=state.uid, state=state.name, key=key_text(key)
    )


# ---- differences ----------------------------------------------------------------


def difference_as_json(one: StateDifference) -> dict[str, Any]:
    """Return how a state differs, as JSON has it."""
    there = {
        (True, True): "both",
        (True, False): "only in the first",
        (False, True): "only in the second",
    }[one.before is not None, one.after is not None]
    return {
        "uid": one.uid,
        "state": one.state,
        "there": there,
        "added": one.added,
        "removed": one.removed,
        "changed": one.changed,
        "unchanged": one.unchanged,
        "declaration": {name: list(values) for name, values in one.declaration.items()},
        "keys": [{"difference": what, "key": key_text(key)} for what, key in one.keys],
    }


def regrouped_operators(first: Savepoint, second: Savepoint) -> list[str]:
    """Return a line for each operator whose keys are in other key groups, so that more of them are held."""
    before = {operator.uid: operator.max_parallelism for operator in first.operators()}
    return [
        f"operator {uid!r} has max parallelism {number}, and had {before[uid]}"
        for uid, number in ((operator.uid, operator.max_parallelism) for operator in second.operators())
        if before.get(uid, number) != number
    ]


def print_differences(found: Iterable[StateDifference]) -> None:
    """Print a table of states that differ, and some keys of each."""
    differing = [one for one in found if not one.same]
    if not differing:
        say("no state differs")
        return
    header = ("uid", "state", "added", "removed", "changed", "unchanged", "note")
    print_table(
        header,
        (
            (
                one.uid, one.state, f"{one.added:,}", f"{one.removed:,}", f"{one.changed:,}",
                f"{one.unchanged:,}", _note(one),
            )
            for one in differing
        ),
        numbers=frozenset(header[2:6]),
    )  # fmt: skip
    keys = [(one.uid, one.state, what, key_text(key)) for one in differing for what, key in one.keys]
    if keys:
        print()
        print_table(("uid", "state", "", "key"), keys)


def _note(one: StateDifference) -> str:
    if one.before is None:
        return "only in the second"
    if one.after is None:
        return "only in the first"
    changes = one.declaration.items()
    return "; ".join(f"{name.replace('_', ' ')} was {old!r}, is {new!r}" for name, (old, new) in changes)
