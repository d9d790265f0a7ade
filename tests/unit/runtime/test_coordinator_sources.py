"""A split is in one place: its enumerator hands it to a reader that asks, and forgets it."""

from raystream.errors import StorageError
from raystream.ids import Attempt, OperatorUid
from raystream.runtime import messages as msg
from tests.unit.runtime.coordinator_world import INTERVAL_MS, FakeSource, World, running

READ = OperatorUid("read")


def assigned(world, subtask=None):
    return [
        (c.subtask, c.splits, c.no_more)
        for c in world.commands(msg.AssignSplits)
        if subtask in (None, c.subtask)
    ]


def ask(world, subtask):
    world.report(msg.SplitsRequested(attempt=world.view.attempt, uid=READ, subtask=subtask))
    return world.settle()


def test_readers_that_ask_get_splits_until_there_are_no_more():
    world = running()
    assert assigned(world) == [(0, (b"s0",), False), (1, (b"s1",), False)]
    ask(world, 1)
    ask(world, 0)

    assert assigned(world)[2:] == [(1, (b"s2",), True), (0, (), True)]


def test_first_discovery_is_over_before_a_slot_starts():
    world = World()
    world.held = {"discover"}
    world.start()
    assert not world.sent

    world.release_work("discover")
    assert world.status == "RUNNING"


def test_reader_waits_for_splits_that_a_later_discovery_finds():
    world = running(source=FakeSource([[b"a"], [], [b"b"]], discovery_interval_ms=50))
    assert assigned(world) == [(0, (b"a",), False)]
    world.run_for(50)
    assert len(assigned(world)) == 1
    world.run_for(50)

    assert assigned(world)[1:] == [(1, (b"b",), False)]


def test_trigger_is_sent_in_the_step_in_which_the_enumerator_is_snapshotted():
    world = running(source=FakeSource([[b"a"], [b"b"]], discovery_interval_ms=INTERVAL_MS))
    world.held = {"write_metadata"}
    world.run_for(INTERVAL_MS)
    ask(world, 0)

    kinds = [type(c) for _, c in world.sent]
    last_trigger = max(i for i, kind in enumerate(kinds) if kind is msg.TriggerCheckpoint)
    splits_before = [
        s for _, c in world.sent[:last_trigger] if isinstance(c, msg.AssignSplits) for s in c.splits
    ]
    world.release_work("write_metadata")
    stored = world.storage.snapshots.load(f"jobmanager:{world.completed[0]}")[1].enumerators["read"].split()
    assert not set(stored) & set(splits_before)
    assert sorted([*stored, *splits_before]) in ([b"a"], [b"a", b"b"])


def test_outcome_of_a_discovery_for_an_older_attempt_is_dropped():
    world = running(source=FakeSource([[b"a"], [b"late"], [b"a"]], discovery_interval_ms=50))
    world.held = {"discover"}
    world.run_for(50)
    world.fail()
    world.restart()
    world.release_work("discover")

    assert world.status == "RUNNING"
    assert b"late" not in [s for c in world.commands(msg.AssignSplits) for s in c.splits]


def test_discovery_that_fails_fails_the_attempt():
    source = FakeSource([[b"a"], StorageError("listing failed"), [b"a"]], discovery_interval_ms=50)
    world = running(source=source)
    world.run_for(50)
    world.restart()

    assert world.view.attempt == 2
    assert world.view.error.message == "listing failed"


def test_error_in_an_enumerator_names_its_source():
    world = running()

    def broken(subtask):
        raise ZeroDivisionError("by zero")

    source = world.coordinator._sources._sources[READ]
    source.enumerator.next_splits = broken
    ask(world, 0)

    assert world.view.error.context["operator"] == "READ"
    assert "ZeroDivisionError" in str(world.view.error)


def test_request_of_an_older_attempt_gets_no_splits():
    world = running()
    world.fail()
    world.restart()
    before = len(assigned(world))
    world.report(msg.SplitsRequested(attempt=Attempt(1), uid=READ, subtask=0))
    world.settle()

    assert len(assigned(world)) == before
