"""Broadcast state is the same in every subtask, written from one side and read from the other."""

import pytest

from raystream import (
    BroadcastProcessFunction,
    CheckpointedFunction,
    KeyedBroadcastProcessFunction,
    ListStateDescriptor,
    MapStateDescriptor,
    StateError,
    UserCodeError,
    ValueStateDescriptor,
)
from raystream.errors import ConfigError
from raystream.testing import OperatorHarness, Second, check_operator
from raystream.testing.state_rows import row

LEAST = MapStateDescriptor("least", str, int)
NOTES = MapStateDescriptor("notes")
HITS = ValueStateDescriptor("hits", int, default=0)
VALUES = ListStateDescriptor("values", int)


class Above(BroadcastProcessFunction):
    """Lets a record pass that is not below the least of its kind."""

    def process_element(self, value, ctx):
        kind, number = value
        if number >= ctx.get_broadcast_state(LEAST).get(kind, 0):
            yield value
        else:
            ctx.output("dropped", value)

    def process_broadcast_element(self, value, ctx):
        kind, least = value
        rules = ctx.get_broadcast_state(LEAST)
        if least is None:
            rules.remove(kind)
        else:
            rules[kind] = least
        ctx.get_broadcast_state(NOTES)[len(rules)] = ctx.timestamp
        ctx.output("rules", kind)


def above(**options):
    return OperatorHarness(Above(), broadcast=[LEAST, NOTES], **options)


def test_records_see_what_broadcast_records_wrote():
    with above() as harness:
        before = harness.process([("a", 1), ("b", 1)])
        harness.process2([("a", 5)])
        after = harness.process([("a", 1), ("a", 5), ("b", 1)])
        harness.process2([("a", None)])
        last = harness.process([("a", 1)])

        assert before == [("a", 1), ("b", 1)]
        assert after == [("a", 5), ("b", 1)]
        assert last == [("a", 1)]
        assert harness.side_outputs == {"dropped": [("a", 1)], "rules": ["a", "a"]}


def test_broadcast_state_is_there_however_a_job_runs_the_function():
    values = [
        ("a", 1),
        Second(("a", 5)),
        ("a", 1),
        ("a", 5),
        Second(("b", 2)),
        ("b", 1),
        Second(("a", None)),
        ("a", 1),
    ]

    check_operator(
        Above(),
        values,
        [("a", 1), ("a", 5), ("a", 1)],
        broadcast=[LEAST, NOTES],
        side_outputs={"dropped": [("a", 1), ("b", 1)], "rules": ["a", "b", "a"]},
    )


def test_every_subtask_gets_every_broadcast_record():
    with above(parallelism=3) as harness:
        harness.process2([("a", 5)])
        for _ in range(3):
            assert harness.process([("a", 1)]) == []

        assert harness.side_outputs["rules"] == ["a"] * 3


@pytest.mark.parametrize("parallelism", [1, 2, 3, 5])
def test_broadcast_state_is_in_every_subtask_after_a_restore_at_any_parallelism(parallelism):
    with above(parallelism=2) as harness:
        harness.process2([("a", 5), ("b", 2)])
        harness.restore(harness.snapshot(), parallelism)
        for _ in range(parallelism):
            assert harness.process([("a", 1)]) == []
            assert harness.process([("b", 2)]) == [("b", 2)]
        harness.process2([("a", 0)])
        for _ in range(parallelism):
            assert harness.process([("a", 1)]) == [("a", 1)]


class WriteFromTheWrongSide(Above):
    def process_element(self, value, ctx):
        ctx.get_broadcast_state(LEAST).put("a", value)
        return ()


class AskForAnother(Above):
    def process_element(self, value, ctx):
        return [ctx.get_broadcast_state(MapStateDescriptor("other"))]

    def process_broadcast_element(self, value, ctx):
        return [ctx.get_broadcast_state(MapStateDescriptor("other"))]


@row("operator.broadcast-write")
def test_broadcast_state_is_read_only_on_the_other_side():
    with (
        OperatorHarness(WriteFromTheWrongSide(), broadcast=[LEAST]) as harness,
        pytest.raises(UserCodeError) as raised,
    ):
        harness.process([1])

    assert isinstance(raised.value.__cause__, StateError)
    assert "written where it can only be read" in raised.value.context["cause"]


@pytest.mark.parametrize("side", ["process", "process2"])
def test_state_that_was_not_declared_is_refused_with_those_that_were(side):
    with (
        OperatorHarness(AskForAnother(), broadcast=[LEAST]) as harness,
        pytest.raises(UserCodeError) as raised,
    ):
        getattr(harness, side)([1])

    assert raised.value.__cause__.context == {"state": "other", "declared": ["least"]}


def test_broadcast_function_may_keep_other_operator_state_too():
    class Both(Above, CheckpointedFunction):
        def initialize_state(self, ctx):
            self.seen = ctx.get_list_state(ListStateDescriptor("seen"))

        def process_element(self, value, ctx):
            self.seen.add(value)
            yield len(self.seen.get())

        def snapshot_state(self, ctx):
            pass

    with OperatorHarness(Both(), broadcast=[LEAST, NOTES]) as harness:
        harness.process2([("a", 1)])
        harness.process([("a", 1)])
        harness.restore(harness.snapshot())

        assert harness.process([("a", 1)]) == [2]


# ---- keyed -------------------------------------------------------------------------------


class CountUntilReset(KeyedBroadcastProcessFunction):
    def open(self, ctx):
        self.hits = ctx.get_state(HITS)
        self.values = ctx.get_list_state(VALUES)

    def process_element(self, value, ctx):
        hits = self.hits.value() + 1
        self.hits.update(hits)
        self.values.add(value[1])
        yield ctx.current_key, hits, ctx.get_broadcast_state(LEAST).get("resets", 0)

    def process_broadcast_element(self, value, ctx):
        rules = ctx.get_broadcast_state(LEAST)
        match value:
            case "reset":
                rules["resets"] = rules.get("resets", 0) + 1
                ctx.apply_to_keyed_state(HITS, lambda key, hits: hits.clear())
            case "show":
                shown = []
                ctx.apply_to_keyed_state(VALUES, lambda key, values: shown.append((key, values.get())))
                return shown
            case "touch":
                self.hits.update(7)
            case "touch behind":
                ctx.apply_to_keyed_state(HITS, lambda key, hits: None)
                self.hits.value()
        return ()


def counting(**options):
    return OperatorHarness(CountUntilReset(), key=lambda value: value[0], broadcast=[LEAST], **options)


@row("operator.broadcast-keyed")
@pytest.mark.parametrize("parallelism", [1, 3])
def test_broadcast_record_visits_every_key_of_every_subtask(parallelism):
    with counting(parallelism=parallelism) as harness:
        harness.process([("a", 1), ("b", 2), ("a", 3), ("c", 4)])

        assert sorted(harness.process2(["show"])) == [("a", [1, 3]), ("b", [2]), ("c", [4])]

        harness.process2(["reset"])
        harness.restore(harness.snapshot(), 4 - parallelism)

        assert harness.process([("a", 5)]) == [("a", 1, 1)]
        assert sorted(harness.process2(["show"])) == [("a", [1, 3, 5]), ("b", [2]), ("c", [4])]


def test_keyed_state_is_visited_while_a_snapshot_is_in_progress_and_the_snapshot_does_not_change():
    with counting() as harness:
        harness.process([("a", 1), ("b", 2)])
        in_progress = harness.begin_snapshot()
        harness.process2(["reset"])
        assert harness.process([("a", 3)]) == [("a", 1, 1)]
        harness.restore(in_progress.finish())

        assert harness.process([("a", 3)]) == [("a", 2, 0)]


@row("operator.broadcast-keyed")
@pytest.mark.parametrize("value", ["touch", "touch behind"])
def test_keyed_state_is_out_of_reach_of_a_broadcast_record_otherwise(value):
    with counting() as harness:
        harness.process([("a", 1)])
        with pytest.raises(UserCodeError) as raised:
            harness.process2([value])

    assert isinstance(raised.value.__cause__, StateError)
    assert "without a current key" in str(raised.value.__cause__)


def test_harness_wants_the_function_that_fits_the_stream():
    with pytest.raises(ConfigError, match="needs a keyed stream"):
        OperatorHarness(CountUntilReset(), broadcast=[LEAST])
    with pytest.raises(ConfigError, match="without keys"):
        OperatorHarness(Above(), key=str, broadcast=[LEAST])


class Remind(CountUntilReset):
    def process_element(self, value, ctx):
        ctx.timers.register_event_time(value[1])
        return super().process_element(value, ctx)

    def on_timer(self, timestamp, ctx):
        yield ctx.current_key, timestamp, ctx.get_broadcast_state(LEAST).get("resets", 0)

    def process_broadcast_element(self, value, ctx):
        yield "watermark", ctx.current_watermark
        super().process_broadcast_element(value, ctx)


def test_timers_read_broadcast_state_and_the_broadcast_side_sees_the_watermark():
    with OperatorHarness(Remind(), key=lambda value: value[0], broadcast=[LEAST]) as harness:
        harness.process([("a", 10), ("b", 20)])
        assert harness.watermark(10) == [("a", 10, 0)]
        assert harness.process2(["reset"]) == [("watermark", 10)]

        assert harness.watermark(20) == [("b", 20, 1)]
