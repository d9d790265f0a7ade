"""Watermarks and timers in running slots: through chains, exchanges, back-pressure and restores."""

import pytest

from raystream import KeyedProcessFunction, ProcessFunction, WatermarkStrategy
from raystream.operators.timers import TIMERS_PER_SLICE_MAX
from raystream.records.elements import WATERMARK_MAX_MS, SnapshotKind
from raystream.runtime import messages as msg
from raystream.testing import Barrier, Idle, Pause, TestSource, Watermark
from tests.unit.runtime.feeds import Feeds
from tests.unit.runtime.slot_world import VisibleSink, World, program, restore_of

STAMPED = WatermarkStrategy.no_watermarks().with_timestamp_assigner(lambda value: value)


@pytest.fixture(autouse=True)
def _nothing_visible():
    VisibleSink.visible.clear()


class Alarm(KeyedProcessFunction):
    """Sets a timer for the time of each record; tells when it fires, and what the watermark is."""

    def process_element(self, value, ctx):
        ctx.timers.register_event_time(ctx.timestamp)

    def on_timer(self, timestamp, ctx):
        yield timestamp, ctx.timers.current_watermark


class Witness(ProcessFunction):
    """Tells each record with the watermark that it came behind."""

    def process_element(self, value, ctx):
        yield value, ctx.timers.current_watermark


def alarms(source, *, strategy=STAMPED, parallelism=2, **options):
    """Return the program in which every record of a source sets a timer."""

    def build(env):
        stamped = env.from_source(source, watermarks=strategy, name="numbers", uid="numbers")
        fired = stamped.key_by(lambda value: value % 16).process(Alarm(), name="alarm", uid="alarm")
        fired.sink_to(VisibleSink(), uid="out")

    return program(build, parallelism=parallelism, **options)


def started(job, **options):
    world = World(job, **options)
    world.begin()
    return world


def pass_seconds(world, seconds):
    for _ in range(seconds * 10):
        world.clock.now_ms += 100
        world.settle()


def fired(world):
    """Commit everything and return the times of the timers that fired so far, by watermark."""
    world.send(msg.CommitAtEnd)
    assert world.all(msg.SlotFailed) == []
    by_watermark: dict[int, list[int]] = {}
    for timestamp, watermark in VisibleSink.visible:
        by_watermark.setdefault(watermark, []).append(timestamp)
    return {watermark: sorted(times) for watermark, times in by_watermark.items()}


def test_watermark_crosses_every_exchange_behind_its_records():
    numbers = list(range(40))
    world = started(alarms(TestSource([*numbers, Watermark(20), 50], [*numbers, Watermark(30), 60])))

    # The first list ends, and no longer counts, before the second one does.
    assert fired(world) == {
        20: list(range(21)),
        30: list(range(21, 31)),
        WATERMARK_MAX_MS: [*range(31, 40), 50, 60],
    }


def test_event_time_is_the_minimum_over_the_subtasks_of_a_source():
    world = started(alarms(TestSource([5, Watermark(10), Pause(1000)], [15, Watermark(30), Pause(2000)])))
    assert fired(world) == {10: [5]}

    world.clock.now_ms += 1000
    world.settle()
    assert fired(world) == {10: [5], 30: [15]}


def test_idle_input_never_stalls_another():
    world = started(alarms(TestSource([1, Idle(), Pause(10_000)], [1, 2, Watermark(2), 3, Pause(10_000)])))

    assert fired(world) == {2: [1, 2]}


def test_input_that_is_silent_from_the_start_stalls_nobody_when_it_is_declared_idle():
    """The second list has nobody to say anything; its strategy does, when the time-out has passed since the
    first watermark was due."""
    strategy = WatermarkStrategy.for_monotonous_timestamps().with_timestamp_assigner(lambda value: value)
    source = TestSource([1, 2, 3, Pause(100_000)], [Pause(100_000)])
    world = started(alarms(source, strategy=strategy.with_idleness("5s")))
    for _ in range(25):
        world.clock.now_ms += 200
        world.settle()
    assert fired(world) == {}

    world.clock.now_ms += 200
    world.settle()
    assert fired(world) == {2: [1, 2]}


def test_when_all_inputs_are_idle_time_stands_still_and_goes_on_with_the_first_record():
    source = TestSource(
        [1, Watermark(5), Idle(), Pause(1000), 7, Watermark(8), Pause(9000)], [Idle(), Pause(9000)]
    )
    world = started(alarms(source))
    assert fired(world) == {5: [1]}

    world.clock.now_ms += 1000
    world.settle()
    assert fired(world) == {5: [1], 8: [7]}


def test_watermark_passes_operators_side_outputs_and_unions_that_know_nothing_of_it():
    class Split(ProcessFunction):
        def process_element(self, value, ctx):
            ctx.output("odd" if value % 2 else "even", value)

    def build(env):
        source = TestSource([1, 2, 3, Watermark(3), 4, 5])
        split = env.from_source(source, watermarks=STAMPED, uid="numbers").process(Split(), uid="split")
        joined = split.get_side_output("odd").union(split.get_side_output("even"))
        seen = joined.rebalance().map(lambda value: value).process(Witness(), uid="witness")
        seen.sink_to(VisibleSink(), uid="out")

    world = started(program(build, parallelism=1), slots=1)
    world.send(msg.CommitAtEnd)

    late = [value for value, watermark in VisibleSink.visible if watermark == 3]
    assert sorted(late) == [4, 5]
    assert len(VisibleSink.visible) == 5


def test_periodic_watermarks_follow_the_configured_interval():
    strategy = WatermarkStrategy.for_bounded_out_of_orderness(5).with_timestamp_assigner(lambda value: value)
    job = alarms(
        TestSource([10, 20, 30, Pause(1000)]),
        strategy=strategy,
        parallelism=1,
        pipeline_auto_watermark_interval="50ms",
    )
    world = started(job, slots=1)
    world.clock.now_ms += 49
    world.settle()
    assert fired(world) == {}

    world.clock.now_ms += 1
    world.settle()
    assert fired(world) == {24: [10, 20]}


def test_timers_of_one_watermark_fire_in_slices_and_all_before_the_next_element():
    count = 5 * TIMERS_PER_SLICE_MAX
    source = TestSource([*range(count), Watermark(count), count + 1, Barrier()])
    world = started(alarms(source, parallelism=1), slots=1)
    world.trigger(1)

    assert fired(world) == {count: list(range(count)), WATERMARK_MAX_MS: [count + 1]}


def test_stop_fires_no_timer_that_the_savepoint_keeps():
    script = [1, 2, Watermark(1), Barrier(), 3]
    world = started(alarms(TestSource(script, script)))
    acks = world.trigger(1, stop=True, kind=SnapshotKind.SAVEPOINT)
    world.send(msg.CheckpointCompleted, checkpoint_id=1, final=True)
    assert sorted(VisibleSink.visible) == [(1, 1)]

    world.send(msg.StopAttempt)
    VisibleSink.visible.clear()
    world.begin(restore=restore_of(acks), sources=world.source_states())

    # The first commits again what the savepoint has committed.
    assert fired(world) == {1: [1], WATERMARK_MAX_MS: [2, 3]}


def test_drain_fires_all_timers_and_the_savepoint_has_what_they_emitted():
    script = [1, 2, Watermark(1), Barrier(), 3]
    world = started(alarms(TestSource(script, script)))
    acks = world.trigger(1, stop=True, drain=True, kind=SnapshotKind.SAVEPOINT)
    assert acks.keys() == world.subtasks == {(r.vertex, r.subtask) for r in world.all(msg.InputEnded)}
    world.send(msg.CheckpointCompleted, checkpoint_id=1, final=True)

    assert fired(world) == {1: [1], WATERMARK_MAX_MS: [2]}, "what was not read before the drain is not read"
    assert {(r.vertex, r.subtask) for r in world.all(msg.CommitsDone)} == world.subtasks


def test_slow_split_holds_its_subtask_back_until_it_is_idle_also_after_a_restore(monkeypatch):
    monkeypatch.setattr(Feeds, "records", {"fast": [10, 20, 30], "slow": [12]})
    strategy = WatermarkStrategy.for_monotonous_timestamps().with_timestamp_assigner(lambda value: value)
    world = started(alarms(Feeds(), strategy=strategy.with_idleness("5s"), parallelism=1), slots=1)
    pass_seconds(world, 1)
    assert fired(world) == {11: [10]}
    snapshots, states = world.trigger(1), world.source_states()

    world.send(msg.StopAttempt)
    VisibleSink.visible.clear()
    world.begin(restore=restore_of(snapshots), sources=states)
    Feeds.records["fast"].append(40)
    pass_seconds(world, 1)
    assert fired(world) == {}, "nothing has come of the slow one yet"
    Feeds.records["slow"].append(25)
    pass_seconds(world, 1)
    assert fired(world) == {24: [12, 20]}
    for time in range(50, 110, 10):
        Feeds.records["fast"].append(time)
        pass_seconds(world, 1)
    timers = [timer for timers in fired(world).values() for timer in timers]
    assert timers == [12, 20, 25, 30, 40, 50, 60, 70, 80, 90]


def test_source_that_stops_at_a_savepoint_emits_no_watermark_behind_it_unless_it_goes_on():
    strategy = WatermarkStrategy.for_monotonous_timestamps().with_timestamp_assigner(lambda value: value)
    source = TestSource([10, 20, Barrier(), 30, Pause(9000)])
    world = started(alarms(source, strategy=strategy, parallelism=1), slots=1)
    world.trigger(1, stop=True, kind=SnapshotKind.SAVEPOINT)
    world.clock.now_ms += 1000
    world.settle()
    assert fired(world) == {}

    world.send(msg.CheckpointAborted, checkpoint_id=1)
    assert fired(world) == {19: [10]}
    world.clock.now_ms += 200
    world.settle()
    assert fired(world) == {19: [10], 29: [20]}


# ---- processing time -----------------------------------------------------------------


class Delay(KeyedProcessFunction):
    """Emits each key some ms after its record."""

    def process_element(self, value, ctx):
        ctx.timers.register_processing_time(ctx.timers.current_processing_time + value)

    def on_timer(self, timestamp, ctx):
        yield ctx.current_key, timestamp


def delays(source):
    def build(env):
        keyed = env.from_source(source, uid="numbers").key_by(lambda value: value)
        keyed.process(Delay(), uid="delay").sink_to(VisibleSink(), uid="out")

    return program(build, parallelism=1)


def visible(world):
    world.send(msg.CommitAtEnd)
    assert world.all(msg.SlotFailed) == []
    return VisibleSink.visible


def test_processing_timers_fire_by_the_deadline_of_the_slot():
    world = started(delays(TestSource([30, 10, 20, Pause(10_000)])), slots=1)
    now_ms = world.clock.wall_ms()
    assert world.slots[0].next_deadline_ms() == now_ms + 10

    for after_ms in (10, 20, 30):
        world.clock.now_ms = now_ms + after_ms
        world.settle()
        assert visible(world)[-1] == (after_ms, now_ms + after_ms)
    assert len(visible(world)) == 3


def test_processing_timers_that_are_due_at_a_restore_fire_at_once():
    world = started(delays(TestSource([500, 700, Barrier(), Pause(10_000)])), slots=1)
    before_ms = world.clock.wall_ms()
    acks = world.trigger(1)
    world.send(msg.StopAttempt)
    world.clock.now_ms += 600

    world.begin(restore=restore_of(acks), sources=world.source_states())

    assert visible(world) == [(500, before_ms + 500)]


def test_wall_clock_that_was_set_back_does_not_run_below_the_time_of_the_snapshot():
    world = started(delays(TestSource([500, Barrier(), Pause(10_000)])), slots=1)
    before_ms = world.clock.wall_ms()
    world.clock.now_ms += 300
    acks = world.trigger(1)
    world.send(msg.StopAttempt)
    world.clock.now_ms -= 250

    world.begin(restore=restore_of(acks), sources=world.source_states())
    assert world.slots[0].next_deadline_ms() == world.clock.now_ms + 200
    world.clock.now_ms = before_ms + 500
    world.settle()

    assert visible(world) == [(500, before_ms + 500)]


def test_processing_timers_that_are_pending_at_the_end_of_the_input_are_dropped():
    world = started(delays(TestSource([500, 10, Pause(20)])), slots=1)
    now_ms = world.clock.wall_ms()
    world.clock.now_ms += 20
    world.settle()
    assert len(world.all(msg.InputEnded)) == len(world.subtasks)
    world.clock.now_ms += 1000
    world.settle()

    assert visible(world) == [(10, now_ms + 10)]
