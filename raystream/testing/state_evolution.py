"""Contract of restores into a program whose declarations have changed."""

import enum
from dataclasses import dataclass, make_dataclass, replace
from typing import Any

import msgspec
import pytest

from raystream.state.descriptor import (
    AggregatingStateDescriptor,
    ListStateDescriptor,
    MapStateDescriptor,
    ReducingStateDescriptor,
    StateDescriptor,
    ValueStateDescriptor,
)
from raystream.state.ttl import StateTtl
from raystream.testing.state_kit import (
    COUNTS,
    ELEMENTS,
    HITS,
    MEAN,
    START_MS,
    TOTAL,
    BackendContract,
    Mean,
    Subtask,
    read,
    register,
    write,
)
from raystream.testing.state_rows import row


class Level(enum.Enum):
    """An enum."""

    LOW = "low"
    HIGH = "high"


@dataclass(frozen=True)
class Visit:
    """A record as an old program had it."""

    path: str
    at: int
    levels: tuple[Level, ...] = ()


@dataclass
class Tree:
    """A record that contains itself."""

    label: str
    children: "list[Tree]"


class Opaque:
    """A class without a codec."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Opaque) and self.n == other.n

    __hash__ = None  # type: ignore[assignment]  # values need none


AFTER = make_dataclass("Visit", [("at", int), ("note", str, "none")])
"""`Visit` in a new program: without its path and levels, with a note."""

AFTER_STRUCT = msgspec.defstruct("Visit", [("at", int), ("note", str, "none")])

LIVED = StateTtl(100)

every_kind = pytest.mark.parametrize(
    "kind", [HITS, ELEMENTS, COUNTS, TOTAL, MEAN], ids=lambda descriptor: descriptor.kind.value
)

MIGRATED = [
    pytest.param((int, 3), str, 3, "3", id="int to str"),
    pytest.param((int, 2**70), str, 2**70, str(2**70), id="int beyond 64 bits to str"),
    pytest.param((str, "7"), int, "7", 7, id="str to int"),
    pytest.param(
        (Visit, Visit("/a", 2**70, (Level.LOW, Level.HIGH))),
        tuple[str, list[str]],
        {"path": "/a", "at": 2**70, "levels": ("low", "high")},
        ("/a", ["x"]),
        id="record to tuple",
    ),
    pytest.param(
        (set[Visit], {Visit("/a", 1)}),
        list[int],
        [{"path": "/a", "at": 1, "levels": ()}],
        [1],
        id="set of records",
    ),
    pytest.param(
        (Tree, Tree("a", [Tree("b", [])])),
        str,
        {"label": "a", "children": [{"label": "b", "children": []}]},
        "ab",
        id="record that contains itself",
    ),
    pytest.param((dict[str, int | None], {"a": None}), list[str], {"a": None}, ["a"], id="dict to list"),
    pytest.param((None, Opaque(3)), int, Opaque(3), 3, id="pickled to int"),
    pytest.param((int, 3), None, 3, Opaque(3), id="int to pickled"),
]


class EvolutionContract(BackendContract):
    """Added and dropped fields, migrations, and states that do not fit."""

    def restored(self, subtask: Subtask, *, now_ms: int = START_MS) -> Subtask:
        """Restore what a subtask holds, at some time."""
        restored = self.make_subtask([self.finish(self.freeze(subtask))], now_ms=now_ms)
        restored.at("k")
        return restored

    @pytest.mark.parametrize("after", [AFTER, AFTER_STRUCT], ids=["dataclass", "struct"])
    def test_record_may_lose_fields_and_gain_fields_with_a_default(
        self, subtask: Subtask, after: Any
    ) -> None:
        subtask.backend.value_state(ValueStateDescriptor[Any]("v", Visit)).update(Visit("/a", 1))
        subtask.backend.list_state(ListStateDescriptor[Any]("l", Visit)).add(Visit("/a", 2**70))
        subtask.backend.map_state(MapStateDescriptor[Any, Any]("m", str, Visit)).put("x", Visit("/a", 3))
        subtask.backend.reducing_state(ReducingStateDescriptor[Any]("r", max, Visit)).add(Visit("/a", 4))
        restored = self.restored(subtask).backend
        values = [
            restored.value_state(ValueStateDescriptor[Any]("v", after)).value(),
            *restored.list_state(ListStateDescriptor[Any]("l", after)).get(),
            *restored.map_state(MapStateDescriptor[Any, Any]("m", str, after)).values(),
            restored.reducing_state(ReducingStateDescriptor[Any]("r", max, after)).get(),
        ]
        assert [(value.at, value.note) for value in values] == [
            (1, "none"), (2**70, "none"), (3, "none"), (4, "none"),
        ]  # fmt: skip
        assert {match.verdict.value for match in restored.restored_states()} == {"matched"}

    @pytest.mark.parametrize(("stored", "after", "seen", "expected"), MIGRATED)
    def test_migrate_makes_new_values_of_stored_ones(
        self, subtask: Subtask, stored: tuple[Any, Any], after: Any, seen: Any, expected: Any
    ) -> None:
        before, value = stored
        calls = []

        def migrate(old: Any) -> Any:
            calls.append(old)
            return expected

        subtask.backend.value_state(ValueStateDescriptor[Any]("v", before)).update(value)
        subtask.backend.list_state(ListStateDescriptor[Any]("l", before)).add(value)
        subtask.backend.map_state(MapStateDescriptor[Any, Any]("m", str, before)).put_all(
            {"x": value, "none": None}
        )
        subtask.backend.reducing_state(ReducingStateDescriptor[Any]("r", max, before)).add(value)
        restored = self.restored(subtask)
        for _ in range(2):  # What was migrated is stored as the new type, and not migrated again.
            backend = restored.backend
            assert (
                backend.value_state(ValueStateDescriptor[Any]("v", after, migrate=migrate)).value()
                == expected
            )
            assert backend.list_state(ListStateDescriptor[Any]("l", after, migrate=migrate)).get() == [
                expected
            ]
            entries = backend.map_state(
                MapStateDescriptor[Any, Any]("m", str, after, migrate=migrate)
            ).items()
            assert dict(entries) == {"x": expected, "none": None}
            reducing = ReducingStateDescriptor[Any]("r", max, after, migrate=migrate)
            assert backend.reducing_state(reducing).get() == expected
            assert calls == [seen] * 4
            restored = self.restored(restored)

    def test_accumulators_are_migrated(self, subtask: Subtask) -> None:
        class SumAndCount(Mean):
            def get_result(self, accumulator: Any) -> float:
                return float(accumulator["sum"] / accumulator["count"])

        for value in (1, 4):
            subtask.backend.aggregating_state(MEAN).add(value)
        restored = self.restored(subtask)
        state = restored.backend.aggregating_state(
            AggregatingStateDescriptor[int, Any, float](
                "mean",
                SumAndCount(),
                dict[str, int],
                migrate=lambda old: {"sum": old[0], "count": old[1]},
            )
        )
        assert state.get() == 2.5

    def test_migrate_is_not_called_for_what_can_be_read(self, subtask: Subtask) -> None:
        subtask.backend.value_state(HITS).update(3)
        restored = self.restored(subtask)
        widened = ValueStateDescriptor[Any]("hits", int | None, migrate=lambda _old: 99)
        assert restored.backend.value_state(widened).value() == 3

    def test_migrated_value_keeps_its_time(self, subtask: Subtask) -> None:
        subtask.backend.value_state(replace(HITS, ttl=LIVED)).update(3)
        subtask.clock.now_ms += 60
        restored = self.restored(subtask)
        restored.clock.now_ms = subtask.clock.now_ms
        state = restored.backend.value_state(ValueStateDescriptor[Any]("hits", str, ttl=LIVED, migrate=str))
        assert state.value() == "3"
        restored.clock.now_ms += 40
        assert state.value() is None

    # ---- time to live ----

    @row("ttl.switch-on")
    @every_kind
    def test_ttl_switched_on_counts_from_the_restore(self, subtask: Subtask, kind: Any) -> None:
        write(register(subtask.backend, kind), 7)
        restored = self.restored(subtask, now_ms=5000)
        state = register(restored.backend, replace(kind, ttl=LIVED))
        restored.clock.now_ms += 99
        assert read(state) == 7
        restored.clock.now_ms += 1
        assert read(state) is None

    @row("ttl.switch-off")
    @every_kind
    def test_ttl_switched_off_keeps_what_was_alive_for_ever(self, subtask: Subtask, kind: Any) -> None:
        write(register(subtask.backend, replace(kind, ttl=LIVED)), 7)
        restored = self.restored(subtask, now_ms=10**9)
        assert read(register(restored.backend, kind)) == 7

    @every_kind
    def test_changed_ttl_counts_from_the_time_of_writing(self, subtask: Subtask, kind: Any) -> None:
        write(register(subtask.backend, replace(kind, ttl=LIVED)), 7)
        restored = self.restored(subtask, now_ms=START_MS + 999)
        state = register(restored.backend, replace(kind, ttl=StateTtl(1000)))
        assert read(state) == 7
        restored.clock.now_ms += 1
        assert read(state) is None

    @every_kind
    def test_longer_ttl_does_not_bring_back_what_had_expired_also_in_later_snapshots(
        self, subtask: Subtask, kind: Any
    ) -> None:
        state = register(subtask.backend, replace(kind, ttl=LIVED))
        for key in ("old", "young"):
            subtask.at(key)
            write(state, 7)
            subtask.clock.now_ms += 60
        longer = replace(kind, ttl=StateTtl(1000))
        for now_ms in (START_MS + 120, START_MS + 999):
            subtask = self.restored(subtask, now_ms=now_ms)
            state = register(subtask.backend, longer)
            assert [key for _, key, _ in subtask.backend.entries(kind.name)] == ["young"]
            subtask.at("old")
            assert read(state) is None
            subtask.at("young")
            assert read(state) == 7
        subtask.clock.now_ms = START_MS + 1060
        assert read(state) is None

    # ---- what does not fit ----

    def test_every_state_is_matched_new_missing_or_different_and_all_are_reported(
        self, subtask: Subtask
    ) -> None:
        for descriptor in (HITS, ELEMENTS, COUNTS, TOTAL, MEAN):
            write(register(subtask.backend, descriptor), 3)
        restored = self.restored(subtask)
        new = ValueStateDescriptor[Any]("new", int)
        for descriptor in (HITS, ListStateDescriptor[Any]("elements", str), COUNTS, new):
            register(restored.backend, descriptor)
        register(restored.backend, ValueStateDescriptor[Any]("total", int))
        matches = {match.name: match for match in restored.backend.restored_states()}
        assert {name: match.verdict.value for name, match in matches.items()} == {
            "hits": "matched", "elements": "different", "counts": "matched", "new": "new",
            "total": "different", "mean": "missing",
        }  # fmt: skip
        assert "'int'" in matches["elements"].problem
        assert "'str'" in matches["elements"].problem
        assert "reducing" in matches["total"].problem
        stored = [match for match in matches.values() if match.stored is not None]
        assert all(match.entries in (1, None) for match in stored)
        assert all(match.size_bytes is None or match.size_bytes > 0 for match in stored)

    @pytest.mark.parametrize(
        ("stored", "registered"),
        [
            pytest.param(HITS, ListStateDescriptor[Any]("hits", int), id="kind"),
            pytest.param(HITS, ValueStateDescriptor[Any]("hits"), id="serializer"),
            pytest.param(HITS, ValueStateDescriptor[Any]("hits", str), id="type"),
            pytest.param(ELEMENTS, ListStateDescriptor[Any]("elements", str), id="type of elements"),
            pytest.param(COUNTS, MapStateDescriptor[Any, Any]("counts", str, str), id="type of map values"),
            pytest.param(TOTAL, ReducingStateDescriptor[Any]("total", max, str), id="type of reduction"),
            pytest.param(
                MEAN,
                AggregatingStateDescriptor[Any, Any, Any]("mean", Mean(), list[str]),
                id="type of accumulator",
            ),
            pytest.param(TOTAL, replace(HITS, name="total"), id="reduction to value"),
            pytest.param(HITS, replace(TOTAL, name="hits"), id="value to reduction"),
            pytest.param(COUNTS, MapStateDescriptor[Any, Any]("counts"), id="serializer of a map"),
            pytest.param(HITS, replace(HITS, namespaced=True), id="namespaces"),
            pytest.param(COUNTS, MapStateDescriptor[Any, Any]("counts", int, int), id="map key"),
            pytest.param(
                COUNTS, MapStateDescriptor[Any, Any]("counts", int, int, migrate=int), id="migrated map key"
            ),
            pytest.param(HITS, ListStateDescriptor[Any]("hits", int, migrate=int), id="migrated kind"),
            pytest.param(
                HITS, ValueStateDescriptor[Any]("hits", str, migrate=lambda n: n), id="wrong migration"
            ),
            pytest.param(
                HITS, ValueStateDescriptor[Any]("hits", str, migrate=lambda n: n[0]), id="failing migration"
            ),
        ],
    )
    def test_state_that_does_not_fit_is_reported_and_empty(
        self, subtask: Subtask, stored: StateDescriptor, registered: StateDescriptor
    ) -> None:
        write(register(subtask.backend, stored), 3)
        restored = self.restored(subtask)
        state = register(restored.backend, registered)
        (match,) = restored.backend.restored_states()
        assert (match.verdict.value, match.stored, match.registered) == (
            "different", stored.info(), registered.info(),
        )  # fmt: skip
        assert match.problem
        assert read(state) is None

    def test_states_that_the_new_program_lacks_are_reported_until_dropped(self, subtask: Subtask) -> None:
        subtask.backend.value_state(HITS).update(1)
        subtask.backend.list_state(ELEMENTS).add(1)
        restored = self.restored(subtask)
        restored.backend.value_state(HITS)
        assert restored.backend.drop_unregistered() == (ELEMENTS.info(),)
        assert [match.name for match in restored.backend.restored_states()] == ["hits"]
        assert self.freeze(restored).states == (HITS.info(),)

    def test_state_that_the_snapshot_lacks_starts_empty(self, subtask: Subtask) -> None:
        subtask.backend.value_state(HITS).update(1)
        restored = self.restored(subtask)
        assert restored.backend.list_state(ELEMENTS).get() == []
        assert restored.backend.value_state(HITS).value() == 1
