"""What `raystream.savepoint.write` is given: rows of a state, and which state they are of."""

from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from raystream.clock import TimeDomain
from raystream.errors import StateError
from raystream.handles import StateInfo
from raystream.savepoint.casting import Target, value_columns
from raystream.savepoint.rows import SUBTASK
from raystream.savepoint.tables import as_table, check_columns, check_distinct, keys_of
from raystream.state.canonical_keys import key_columns
from raystream.state.canonical_operators import operator_elements
from raystream.state.canonical_rows import MAP_KEY, POSITION
from raystream.state.canonical_values import VALUE, VALUE_MSGPACK, VALUE_PICKLE
from raystream.state.descriptor import (
    EVENT_TIMERS,
    PROCESSING_TIMERS,
    ListStateDescriptor,
    MapStateDescriptor,
    StateDescriptor,
)
from raystream.state.operator_store import OperatorStateKind, declared_operator_state


@dataclass(frozen=True, slots=True)
class KeyedState:
    """All rows of a keyed state.

    Attributes:
        uid: of the operator.
        state: the descriptor by which the program declares the state; or the name of a state that the base
            of the new savepoint has, which keeps its declaration.
        rows: an Arrow table, a dict of columns, or a data frame: `key` and `value`, and where the state has
            them `map_key`, `namespace`, `position`, `written_ms`; all as `State.to_arrow` has them.

    Example:
        >>> from raystream import ValueStateDescriptor
        >>> hits = {"key": ["/", "/about"], "value": [41, 1]}
        >>> KeyedState("count-hits", ValueStateDescriptor("hits", int), hits).name
        'hits'
    """

    uid: str
    state: StateDescriptor | str
    rows: Any

    @property
    def name(self) -> str:
        """Name of the state."""
        return self.state if isinstance(self.state, str) else self.state.name


@dataclass(frozen=True, slots=True)
class Timers:
    """All timers of an operator that go by one time.

    Attributes:
        uid: of the operator.
        rows: a table with `key` and `time_ms`, and `namespace` where timers have one.
        domain: `event` or `processing` time.
    """

    uid: str
    rows: Any
    domain: Literal["event", "processing"] = "event"

    def __post_init__(self) -> None:
        if self.domain not in ("event", "processing"):
            raise StateError(
                "timers go by no such time",
                hint="the domain is 'event' or 'processing'",
                operator=self.uid,
                domain=self.domain,
            )

    @property
    def name(self) -> str:
        """Name of the state that timers are."""
        return EVENT_TIMERS if self.domain == "event" else PROCESSING_TIMERS


@dataclass(frozen=True, slots=True)
class OperatorState:
    """All elements of a state that belongs to the subtasks of an operator.

    Attributes:
        uid: of the operator.
        state: the descriptor by which the program declares it: a `ListStateDescriptor`, for a broadcast map a
            `MapStateDescriptor`; the name of raw state; or the name of a state that the base has.
        rows: a table with `value`, and `map_key` of a broadcast map.
        union: a list state of which every subtask gets everything at a restore.
    """

    uid: str
    state: ListStateDescriptor[Any] | MapStateDescriptor[Any, Any] | str
    rows: Any
    union: bool = False

    @property
    def name(self) -> str:
        """Name of the state."""
        return self.state if isinstance(self.state, str) else self.state.name


Given = KeyedState | Timers | OperatorState


def declared_keyed(
    given: KeyedState | Timers, known: StateInfo | None
) -> tuple[StateInfo, TimeDomain | None]:
    """Return the description of a keyed state, and of which time it has times of writing.

    Args:
        given: the state.
        known: the state of this name in the base.

    Raises:
        StateError: only its name is given, and there is none.
    """
    if isinstance(given, Timers):
        timers: StateDescriptor = MapStateDescriptor(given.name, tuple, type(None), internal=True)
        return timers.info(), None
    if isinstance(given.state, str):
        if known is None:
            raise _not_declared(given)
        return known, None
    ttl = given.state.ttl
    return given.state.info(), None if ttl is None else ttl.time


def declared_operator(given: OperatorState, known: StateInfo | None) -> StateInfo:
    """Return the description of operator state; as `declared_keyed`."""
    if isinstance(given.state, str):
        if known is not None:
            return known
        return declared_operator_state(OperatorStateKind.RAW, ListStateDescriptor(given.state, bytes))
    if given.state.ttl is not None:
        raise StateError("operator state has no time to live", operator=given.uid, state=given.name)
    kind = OperatorStateKind.UNION if given.union else OperatorStateKind.LIST
    if isinstance(given.state, MapStateDescriptor):
        kind = OperatorStateKind.BROADCAST
    return declared_operator_state(kind, given.state)


def _not_declared(given: KeyedState) -> StateError:
    return StateError(
        "state is not declared",
        hint="give its descriptor instead of its name, or as base a savepoint that has the state",
        operator=given.uid,
        state=given.name,
    )


def elements_of(target: Target, given: Any) -> list[bytes]:
    """Return rows of operator state as elements, as they are stored.

    Raises:
        StateError: the columns, a key or a value do not fit; or a map key is there twice.
    """
    table = as_table(target, given).combine_chunks()
    broadcast = target.info.kind == OperatorStateKind.BROADCAST
    check_columns(
        target,
        table,
        needed=[MAP_KEY, VALUE] if broadcast else [VALUE],
        allowed=[POSITION, VALUE_MSGPACK, VALUE_PICKLE],
    )
    if broadcast and SUBTASK in table.column_names and len(table):
        subtasks = table.column(SUBTASK)  # Each of them has a copy, of which one does.
        table = table.filter(pc.equal(subtasks, subtasks[0]))
    parts = value_columns(target, table, nullable=broadcast)
    if broadcast:
        map_keys = keys_of(target, table, MAP_KEY)
        check_distinct(target, (MAP_KEY,), map_keys)
        parts = [*key_columns(MAP_KEY, map_keys)[1], *parts]
    made = pa.Table.from_arrays([array for _, array in parts], schema=pa.schema([f for f, _ in parts]))
    return operator_elements(target.info, made)
