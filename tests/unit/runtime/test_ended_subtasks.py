"""What has ended in a checkpoint keeps its state after a restore, and does not run again."""

from dataclasses import replace

import pytest

from raystream import KeyedProcessFunction, ListStateDescriptor
from raystream.errors import ConfigError
from raystream.graph.physical import Edge, Partitioning
from raystream.ids import ChannelId, VertexId
from raystream.records.elements import SnapshotKind
from raystream.runtime import messages as msg
from raystream.runtime.coordinator_restore import plan_restore
from raystream.testing import Barrier, Pause, TestSource
from tests.unit.runtime.coordinator_world import INTERVAL_MS, FakeSource, make_plan, make_snapshot, running
from tests.unit.runtime.slot_world import VisibleSink, program, restore_of
from tests.unit.runtime.slot_world import World as Slots
from tests.unit.runtime.test_coordinator_restore import snapshot_of

READ, COUNT = VertexId(0), VertexId(1)


@pytest.fixture(autouse=True)
def _nothing_visible():
    VisibleSink.visible.clear()


# ---- the job master -----------------------------------------------------------------


def connected(parallelism=2, **options):
    plan = make_plan(FakeSource(), parallelism=parallelism, **options)
    edge = Edge(
        position=0, source=READ, source_operator=0, tag=None, target=COUNT,
        partitioning=Partitioning.REBALANCE, key_selector=None, first_channel=ChannelId(0),
    )  # fmt: skip
    return replace(plan, edges=(edge,))


def ended_in(plan, metadata, *uids):
    operators = tuple(replace(operator, ended=operator.uid in uids) for operator in metadata.operators)
    metadata = replace(metadata, operators=operators)
    return plan_restore(plan, "file:///sp", metadata, allow_non_restored=True).ended


@pytest.mark.parametrize("parallelism", [1, 2, 3])
def test_vertex_whose_operators_had_all_ended_does_not_run_again_at_any_parallelism(parallelism):
    plan, stored = connected(parallelism), snapshot_of(connected())

    assert ended_in(plan, stored, "read", "count") == {READ, COUNT}
    assert ended_in(plan, stored, "read") == {READ}
    assert ended_in(plan, stored) == set()


def test_vertex_with_a_new_operator_or_with_an_input_that_runs_does_run():
    assert ended_in(connected(count_uid="other"), snapshot_of(connected()), "read", "count") == {READ}
    assert ended_in(connected(), snapshot_of(connected()), "count") == set()


def take(world, *ended):
    """Have the next checkpoint complete, in which these vertices have ended."""
    world.silent = {msg.TriggerCheckpoint}
    world.run_for(INTERVAL_MS)
    checkpoint_id = world.view.checkpoints[-1].checkpoint_id
    for vertex, subtask in world.plan.subtasks():
        snapshot = make_snapshot(world.plan, vertex.id, subtask, checkpoint_id)
        snapshot = replace(snapshot, ended=(vertex.id, subtask) in ended)
        attempt = world.view.attempt
        world.report(msg.SnapshotAcked(attempt=attempt, checkpoint_id=checkpoint_id, snapshot=snapshot))
    world.settle()
    assert world.completed[-1] == checkpoint_id
    return world.storage.snapshots.load(world.view.checkpoints[-1].path)[1]


def test_source_that_had_ended_looks_for_nothing_after_a_restart(tmp_path):
    """What it read may be gone, or there may be more of it now, which is not its business any more."""
    gone = ConfigError("no such directory")
    world = running(tmp_path, source=FakeSource(([b"s0", b"s1"], gone)), plan=None)
    metadata = take(world, (READ, 0), (READ, 1))
    assert [operator.ended for operator in metadata.operators] == [True, False]
    world.lose(0)
    world.restart()

    assert world.status == "RUNNING", world.view.error
    assert [deploy.ended for deploy in world.commands(msg.Deploy)] == [frozenset()] * 2 + [{READ}] * 2
    assert take(world, (READ, 0), (READ, 1)).enumerators == metadata.enumerators, "its state is kept"


def test_operator_of_which_only_some_subtasks_have_ended_runs_again(tmp_path):
    world = running(tmp_path)
    assert not any(operator.ended for operator in take(world, (READ, 0), (COUNT, 0)).operators)
    world.lose(0)
    world.restart()

    assert all(deploy.ended == frozenset() for deploy in world.commands(msg.Deploy))
    assert len(world.source.made) == 2


# ---- slots -------------------------------------------------------------------------


class Wait(KeyedProcessFunction):
    """Holds each record until a timer of processing time, for which the end of the input does not wait."""

    def open(self, ctx):
        self.held = ctx.get_list_state(ListStateDescriptor("held"))

    def process_element(self, value, ctx):
        self.held.add(value)
        ctx.timers.register_processing_time(ctx.timers.current_processing_time + 500)
        ctx.timers.register_event_time(1 << 60)

    def on_timer(self, timestamp, ctx):
        for value in self.held.get():
            yield "at the end" if timestamp == 1 << 60 else "too late", value


def lopsided():
    """One pipeline whose source ends, and one whose source stays at a barrier."""

    def build(env):
        short = env.from_source(TestSource([1, 2]), uid="short")
        short.key_by(lambda value: value).process(Wait(), uid="wait").sink_to(VisibleSink(), uid="short out")
        long = env.from_source(TestSource([7, Barrier(), 8, Pause(1e9)]), uid="long")
        long.map(lambda value: ("long", value), uid="same").sink_to(VisibleSink(), uid="long out")

    return program(build, parallelism=1)


def test_operator_that_had_ended_emits_nothing_more_and_its_sink_commits():
    world = Slots(lopsided(), slots=1)
    world.begin()
    acks = world.trigger(1)
    ended = {vertex for (vertex, _), ack in acks.items() if ack.ended}
    assert {world.program.plan.vertices[vertex].operators[0].uid for vertex in ended} == {"short", "wait"}
    world.send(msg.StopAttempt)
    assert VisibleSink.visible == [], "nobody was told that the checkpoint is complete"
    world.clock.now_ms += 1_000

    world.begin(restore=restore_of(acks), sources=world.source_states(), ended=ended)
    emitted = [("at the end", 1), ("at the end", 2), ("long", 7)]
    assert sorted(VisibleSink.visible) == emitted, "what was pre-committed is committed by the restore"
    assert {report.vertex for report in world.all(msg.InputEnded)} == ended

    again = world.trigger(2)
    assert again.keys() == world.subtasks
    assert {vertex for (vertex, _), ack in again.items() if ack.ended} == ended
    world.send(msg.CheckpointCompleted, checkpoint_id=2)
    assert sorted(VisibleSink.visible) == sorted([*emitted, ("long", 8)])


def test_state_of_an_operator_that_had_ended_stays_in_later_snapshots():
    world = Slots(lopsided(), slots=1)
    world.begin()
    first = world.trigger(1)
    ended = {vertex for (vertex, _), ack in first.items() if ack.ended}
    world.send(msg.StopAttempt)
    world.begin(restore=restore_of(first), sources=world.source_states(), ended=ended)
    second = world.trigger(2, kind=SnapshotKind.SAVEPOINT)

    def entries(acks):
        return {
            (operator.uid, handle.entries)
            for ack in acks.values()
            for operator in ack.operators
            for handle in operator.keyed
        }

    assert entries(second) == entries(first)
    assert any(count for _, count in entries(first))
