"""Timers of keyed functions: when they fire, in what order, and what `on_timer` sees."""

import random
from itertools import pairwise

import pytest

from raystream import KeyedProcessFunction, ProcessFunction, TimeDomain, ValueStateDescriptor
from raystream.errors import ConfigError, StateError, UserCodeError
from raystream.keygroup import KeyGroupRange
from raystream.operators.process import KeyedProcessOperator
from raystream.operators.timers import TIMERS_PER_SLICE_MAX
from raystream.records.batch import RowBatch
from raystream.records.elements import WATERMARK_MAX_MS, WATERMARK_MIN_MS, Active, Idle, Watermark
from raystream.state.heap import HeapBackend
from raystream.testing import OperatorHarness
from raystream.testing.state_rows import row
from tests.unit.operators.running import Run


class Alarm(KeyedProcessFunction):
    """Does to the timers of a key what the records of the key say, and tells when they fire."""

    def process_element(self, value, ctx):
        _, action, time_ms = value
        getattr(ctx.timers, action)(time_ms)

    def on_timer(self, timestamp, ctx):
        yield ctx.current_key, timestamp


def harness(function=None, **options):
    return OperatorHarness(Alarm() if function is None else function, key=lambda value: value[0], **options)


EVENT, PROCESSING = "register_event_time", "register_processing_time"


# ---- firing --------------------------------------------------------------------


def test_event_timers_fire_in_the_order_of_time_when_the_watermark_reaches_them():
    with harness() as running:
        running.process([("a", EVENT, 30), ("b", EVENT, 10), ("a", EVENT, 20), ("c", EVENT, 40)])

        assert running.watermark(9) == []
        assert running.watermark(30) == [("b", 10), ("a", 20), ("a", 30)]
        assert running.watermark(30) == []
        assert running.watermark(WATERMARK_MAX_MS) == [("c", 40)]


def test_timer_is_there_once_for_each_key_and_time():
    with harness() as running:
        running.process([("a", EVENT, 10), ("a", EVENT, 10), ("b", EVENT, 10), ("a", EVENT, True)])

        assert sorted(running.watermark(10)) == [("a", 1), ("a", 10), ("b", 10)]


def test_event_and_processing_time_have_timers_of_their_own():
    with harness() as running:
        running.process([("a", EVENT, 5000), ("a", PROCESSING, 5000)])

        assert running.processing_time(5000) == [("a", 5000)]
        assert running.watermark(5000) == [("a", 5000)]


def test_processing_timers_fire_in_the_order_of_time_when_the_clock_reaches_them():
    with harness() as running:
        running.process([("a", PROCESSING, 3000), ("b", PROCESSING, 2000)])

        assert running.processing_time(1999) == []
        assert running.processing_time(3000) == [("b", 2000), ("a", 3000)]
        assert running.processing_time(3000) == []


def test_processing_timer_of_the_past_fires_at_once():
    with harness() as running:
        running.process([("a", PROCESSING, -5)])

        assert running.processing_time(1000) == [("a", -5)]


@pytest.mark.parametrize("delete", ["delete_event_time", "delete_processing_time"])
def test_deleted_timer_does_not_fire_and_deleting_what_is_not_there_does_nothing(delete):
    register = delete.replace("delete", "register")
    with harness() as running:
        running.process([("a", delete, 2000), ("a", register, 2000), ("b", register, 2000)])
        running.process([("a", delete, 2000), ("a", delete, 2000)])

        assert running.watermark(9000) + running.processing_time(9000) == [("b", 2000)]


def test_timer_that_was_deleted_and_set_again_fires_once():
    with harness() as running:
        running.process([("a", EVENT, 10), ("a", "delete_event_time", 10), ("a", EVENT, 10)])

        assert running.watermark(10) == [("a", 10)]
        assert running.watermark(11) == []


def test_timers_of_keys_that_do_not_compare_fire_at_one_time():
    with harness() as running:
        keys = {"a", 1, (None, 2), b"b"}
        running.process([(key, EVENT, 10) for key in keys])

        assert {key for key, _ in running.watermark(10)} == keys


# ---- what on_timer sees ----------------------------------------------------------


class Bell(KeyedProcessFunction):
    """Sets a timer 10 ms behind each record; the timer tells all that it sees, and rings again twice."""

    def open(self, ctx):
        self.rings = ctx.get_state(ValueStateDescriptor("rings", int, default=0))

    def process_element(self, value, ctx):
        ctx.timers.register_event_time(ctx.timestamp + 10)
        yield ctx.timers.current_watermark

    def on_timer(self, timestamp, ctx):
        self.rings.update(self.rings.value() + 1)
        ctx.output("rings", self.rings.value())
        yield ctx.current_key, timestamp, ctx.timestamp, ctx.timers.current_watermark
        if self.rings.value() < 3:
            ctx.timers.register_event_time(timestamp + 1)


def test_timer_sees_its_key_state_time_and_the_watermark_that_fires_it():
    with harness(Bell()) as running:
        assert running.process([("a",), ("b",)], timestamps=[100, 200]) == [WATERMARK_MIN_MS] * 2

        # Timers that a timer sets fire with the same watermark, if it has passed them.
        assert running.watermark(150) == [("a", at, at, 150) for at in (110, 111, 112)]
        assert running.process([("a",)], timestamps=[120]) == [150]
        assert running.side_outputs == {"rings": [1, 2, 3]}


def test_late_timer_fires_with_the_next_watermark():
    with harness() as running:
        running.watermark(100)
        running.process([("a", EVENT, 50)])

        assert running.watermark(101) == [("a", 50)]


def test_there_is_no_current_key_behind_a_timer():
    running, operator = opened(Alarm())
    operator.process(batch([("a", EVENT, 1)]))
    operator.process_event_time(Watermark(1))

    assert operator.cursor.current_key is None
    assert operator.cursor.timestamp is None
    with pytest.raises(StateError):
        operator.cursor.timers.register_event_time(5)
    assert running.values == [("a", 1)]


def test_what_event_timers_emit_has_the_time_of_the_timer_and_of_processing_timers_none():
    running, operator = opened(Alarm())
    operator.process(batch([("a", EVENT, 7), ("a", PROCESSING, 900)]))
    operator.process_event_time(Watermark(8))
    operator.time_reached()

    assert running.timestamps == [[7], None]


class Domains(Alarm):
    def on_timer(self, timestamp, ctx):
        yield ctx.time_domain


def test_timer_tells_which_time_it_goes_by():
    with harness(Domains()) as running:
        running.process([("a", EVENT, 5000), ("a", PROCESSING, 5000)])

        assert running.watermark(5000) == [TimeDomain.EVENT_TIME]
        assert running.processing_time(5000) == [TimeDomain.PROCESSING_TIME]


class Failing(Alarm):
    def on_timer(self, timestamp, ctx):
        yield "fine"
        raise ArithmeticError("overflow")


def test_error_of_a_timer_names_its_key_and_time():
    with harness(Failing()) as running:
        running.process([("a", EVENT, 10)])

        with pytest.raises(UserCodeError, match="raised on a timer") as raised:
            running.watermark(10)

    assert raised.value.context["key"] == "'a'"
    assert raised.value.context["time_ms"] == 10
    assert raised.value.context["cause"] == "ArithmeticError: overflow"


# ---- watermarks ------------------------------------------------------------------


def opened(function):
    operator = KeyedProcessOperator(function)
    running = Run(operator)
    backend = HeapBackend(KeyGroupRange(0, 128), 128, operator.cursor, clock=running.context.clock)
    running = Run(operator, keyed_backend=backend)
    operator.open()
    operator.start()
    return running, operator


def batch(records):
    return RowBatch(records, None, [record[0] for record in records], [0] * len(records))


@row("timers.watermark")
def test_watermark_is_forwarded_behind_what_its_timers_emit():
    running, operator = opened(Alarm())
    operator.process(batch([("a", EVENT, 10)]))

    for element in (Watermark(20), Idle(), Active()):
        operator.process_event_time(element)

    assert [type(element) for element in running.log] == [RowBatch, Watermark, Idle, Active]


def test_many_timers_fire_in_slices_and_the_watermark_waits_for_the_last():
    running, operator = opened(Alarm())
    count = 2 * TIMERS_PER_SLICE_MAX + 1
    operator.process(batch([(number, EVENT, number) for number in range(count)]))

    operator.process_event_time(Watermark(count))
    operator.process_event_time(Idle())
    sizes = [len(running.values)]
    while operator.catching_up:
        assert all(isinstance(element, RowBatch) for element in running.log)
        operator.catch_up()
        sizes.append(len(running.values))

    assert running.values == [(number, number) for number in range(count)]
    slices = [after - before for before, after in pairwise([0, *sizes])]
    assert slices == [TIMERS_PER_SLICE_MAX, TIMERS_PER_SLICE_MAX, 1]
    assert running.log[-2:] == [Watermark(count), Idle()]


def test_many_processing_timers_fire_in_slices_and_ask_for_the_next():
    running, operator = opened(Alarm())
    count = TIMERS_PER_SLICE_MAX + 5
    operator.process(batch([(number, PROCESSING, number - count) for number in range(count)]))
    assert running.wakes == [running.context.clock.now_ms]

    operator.time_reached()
    assert len(running.values) == TIMERS_PER_SLICE_MAX
    assert len(running.wakes) == 2

    operator.time_reached()
    assert len(running.values) == count
    assert len(running.wakes) == 2


def test_operator_asks_to_be_woken_for_its_first_timer_only():
    running, operator = opened(Alarm())
    now_ms = running.context.clock.wall_ms()
    for after_ms in (50, 70, 20, 60):
        operator.process(batch([("a", PROCESSING, now_ms + after_ms)]))

    assert running.wakes == [now_ms + 50, now_ms + 20]


# ---- where there are no timers ------------------------------------------------------


class WithoutOnTimer(KeyedProcessFunction):
    def process_element(self, value, ctx):
        ctx.timers.register_event_time(1)


class Watching(ProcessFunction):
    def process_element(self, value, ctx):
        yield ctx.timers.current_watermark, ctx.timers.current_processing_time


def test_timer_of_a_function_without_on_timer_is_an_error_that_says_what_to_do():
    with harness(WithoutOnTimer()) as running, pytest.raises(UserCodeError) as raised:
        running.process([("a",)])

    assert "where none can fire" in raised.value.context["cause"]


def test_function_without_on_timer_registers_no_timers_in_snapshots():
    with harness(WithoutOnTimer()) as without, harness() as with_timers:
        assert [state.name for state in without.snapshot().subtasks[0].states] == []
        names = [state.name for state in with_timers.snapshot().subtasks[0].states]
        assert names == ["_timers_event", "_timers_processing"]


def test_function_without_keys_sees_the_time():
    with OperatorHarness(Watching()) as running:
        running.watermark(70)
        running.processing_time(2000)

        assert running.process([1]) == [(70, 2000)]


def test_time_of_a_timer_is_a_whole_number():
    with harness() as running, pytest.raises(UserCodeError, match="whole number"):
        running.process([("a", EVENT, 1.5)])


def test_clock_of_a_harness_does_not_run_back():
    with harness() as running, pytest.raises(ConfigError):
        running.processing_time(999)


# ---- snapshots -----------------------------------------------------------------------


@row("timers.restored")
@pytest.mark.parametrize("backend", ["hashmap", "rocksdb"])
@pytest.mark.parametrize("batch_size", [1, 7, 1000])
@pytest.mark.parametrize("seed", range(3))
def test_every_timer_fires_once_at_every_parallelism_after_restores(seed, batch_size, backend):
    """Random timers through restores 1 -> 2 -> 3 -> 1, against a set."""
    rng = random.Random(seed)
    model, now_ms = set(), 1000
    with harness(backend=backend) as running:
        for parallelism in (2, 3, 1):
            for records in batches(rng, model, batch_size):
                running.process(records)
            assert fired(running.watermark, rng.randrange(500), model, EVENT)
            assert fired(running.processing_time, now_ms + rng.randrange(100), model, PROCESSING)
            now_ms += 100
            running.restore(running.snapshot(), parallelism=parallelism)
        assert fired(running.watermark, WATERMARK_MAX_MS, model, EVENT)
        assert fired(running.processing_time, 10_000, model, PROCESSING)
    assert not model


def batches(rng, model, size):
    """Yield records that set and delete timers, in batches, and do the same to the model."""
    records = []
    for _ in range(200):
        key, domain = rng.randrange(20), rng.choice([EVENT, PROCESSING])
        time_ms = rng.randrange(1000) + (1000 if domain is PROCESSING else 0)
        if rng.random() < 0.3:
            model.discard((domain, key, time_ms))
            records.append((key, domain.replace("register", "delete"), time_ms))
        else:
            model.add((domain, key, time_ms))
            records.append((key, domain, time_ms))
    for start in range(0, len(records), size):
        yield records[start : start + size]


def fired(advance, until_ms, model, domain):
    """Let time come to a point and compare what fires with the model; True when it is the same."""
    expected = sorted((time_ms, key) for d, key, time_ms in model if d == domain and time_ms <= until_ms)
    model -= {(domain, key, time_ms) for time_ms, key in expected}
    return sorted((time_ms, key) for key, time_ms in advance(until_ms)) == expected


@pytest.mark.parametrize("backend", ["hashmap", "rocksdb"])
@pytest.mark.parametrize("records", [3, 200])
def test_snapshot_in_progress_keeps_the_timers_of_its_barrier(records, backend):
    with harness(backend=backend) as running:
        running.process([(key, EVENT, key) for key in range(records)])
        snapshot = running.begin_snapshot()
        assert len(running.watermark(records)) == records
        running.restore(snapshot.finish())

        assert len(running.watermark(records)) == records
