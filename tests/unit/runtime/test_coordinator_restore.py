"""A snapshot goes to the subtasks of a program, or the submission ends with everything that does not fit."""

import platform
from dataclasses import replace

import pytest

from raystream.errors import StateCorruptError, StateRestoreError
from raystream.ids import Attempt, CheckpointId, OperatorUid, VertexId
from raystream.keygroup import KeyGroupRange
from raystream.records.elements import SnapshotKind
from raystream.runtime import messages as msg
from raystream.runtime.coordinator_restore import plan_restore
from raystream.runtime.described_operators import describe_operators
from raystream.runtime.restored_states import RestoredState
from raystream.state.registry import Verdict
from raystream.storage.metadata import SnapshotMetadata
from raystream.storage.snapshots import SnapshotStore
from tests.unit.runtime.coordinator_world import (
    INTERVAL_MS,
    JOB_ID,
    FakeSource,
    World,
    make_plan,
    make_snapshot,
    running,
)

READ, COUNT = VertexId(0), VertexId(1)


def snapshot_of(plan):
    return SnapshotMetadata(
        job_id=JOB_ID,
        job_name="hits",
        checkpoint_id=CheckpointId(5),
        kind=SnapshotKind.SAVEPOINT,
        created_ms=1,
        completed_ms=2,
        operators=describe_operators(
            plan, [make_snapshot(plan, vertex.id, subtask, 5) for vertex, subtask in plan.subtasks()]
        ),
        enumerators={"read": b"s7 s8"},
    )


def restore(old, new, *, allow=False):
    return plan_restore(new, "file:///sp", snapshot_of(old), allow_non_restored=allow)


def plan(parallelism=2, **options):
    return make_plan(FakeSource(), parallelism=parallelism, **options)


@pytest.mark.parametrize(("old", "new"), [(2, 2), (2, 4), (4, 1), (3, 5)])
def test_every_key_group_is_read_by_the_subtask_that_owns_it(old, new):
    planned = restore(plan(old), plan(new))

    for subtask in range(new):
        (state,) = planned.subtasks[COUNT, subtask].values()
        own = KeyGroupRange(-(-subtask * 128 // new), -(-(subtask + 1) * 128 // new))
        read = [group for handle in state.keyed for group in handle.groups if group in own]
        assert sorted(read) == list(own)
        assert all(handle.groups.intersect(own) for handle in state.keyed)
        assert state.directory == "file:///sp"
        assert [info.name for info in state.states] == ["hits"]


@pytest.mark.parametrize(("old", "new"), [(2, 4), (4, 1)])
def test_splits_are_dealt_out_evenly(old, new):
    planned = restore(plan(old), plan(new))

    counts = [
        sum(part.stop - part.start for state in planned.subtasks[READ, i].values() for part in state.operator)
        for i in range(new)
    ]
    assert sum(counts) == old
    assert max(counts) - min(counts) <= 1


def test_derived_max_parallelism_is_replaced_by_the_stored_one():
    planned = restore(plan(max_parallelism=256), plan(max_parallelism=128, explicit=False))

    assert [vertex.max_parallelism for vertex in planned.plan.vertices] == [128, 256]
    (state,) = planned.subtasks[COUNT, 1].values()
    assert [handle.groups for handle in state.keyed] == [KeyGroupRange(128, 256)]


def test_explicit_other_max_parallelism_is_kept_and_every_subtask_reads_what_may_hold_its_keys():
    planned = restore(plan(2), plan(4, max_parallelism=64))

    assert [vertex.max_parallelism for vertex in planned.plan.vertices] == [64, 64]
    read = [[h.groups for s in planned.subtasks[COUNT, i].values() for h in s.keyed] for i in range(4)]
    assert read == [[KeyGroupRange(0, 64), KeyGroupRange(64, 128)]] * 4


def test_parallelism_above_the_stored_max_parallelism_needs_an_explicit_one():
    planned = restore(plan(max_parallelism=4), plan(5, max_parallelism=128))

    assert planned.plan.vertices[COUNT].max_parallelism == 128


def test_parallelism_above_the_stored_max_parallelism_is_refused():
    with pytest.raises(StateRestoreError, match="has parallelism 5, above the max parallelism 4"):
        restore(plan(max_parallelism=4), plan(5, explicit=False))


def test_missing_state_is_shown_in_a_table_with_a_guess_at_what_was_renamed():
    with pytest.raises(StateRestoreError) as caught:
        restore(plan(), plan(count_uid="count-hits"))

    lines = caught.value.message.splitlines()
    assert lines[0] == "snapshot does not fit the program: state of 1 operator(s) is not in the program:"
    assert [line.split() for line in lines[1:]] == [
        ["uid", "operator", "state", "entries", "bytes"],
        ["matched", "read", "READ", "10"],
        ["new", "count-hits", "COUNT-HITS"],
        ["missing", "count", "COUNT", "hits", "8", "renamed", "to", "'count-hits'?"],
    ]
    assert "--allow-non-restored-state" in caught.value.hint


def test_snapshot_of_another_program_is_not_advised_to_be_dropped():
    metadata = snapshot_of(plan())
    foreign = tuple(replace(one, uid=OperatorUid(f"other-{one.uid}")) for one in metadata.operators)

    with pytest.raises(StateRestoreError) as caught:
        plan_restore(plan(), "file:///sp", replace(metadata, operators=foreign), allow_non_restored=False)
    assert caught.value.hint.startswith("none of its operators is in the program")
    assert "--allow-non-restored-state" not in caught.value.hint


def test_everything_that_does_not_fit_is_reported_at_once():
    old = plan(max_parallelism=4)
    new = plan(5, explicit=False)
    renamed = make_plan(FakeSource(), parallelism=5, explicit=False, count_uid="count")
    stored = snapshot_of(old)
    other = SnapshotMetadata(
        job_id=stored.job_id,
        job_name=stored.job_name,
        checkpoint_id=stored.checkpoint_id,
        kind=stored.kind,
        created_ms=1,
        completed_ms=2,
        operators=(*stored.operators, *snapshot_of(make_plan(FakeSource(), count_uid="gone")).operators[1:]),
    )
    assert renamed.vertices[1].parallelism == new.vertices[1].parallelism

    with pytest.raises(StateRestoreError) as caught:
        plan_restore(renamed, "", other, allow_non_restored=False)

    assert "above the max parallelism 4" in caught.value.message
    assert "gone" in caught.value.message


def test_missing_state_is_dropped_when_that_is_allowed():
    planned = restore(plan(), plan(count_uid="other"), allow=True)

    assert [(state.uid, state.state) for state in planned.gone] == [("count", "hits")]
    assert (COUNT, 0) not in planned.subtasks
    assert (READ, 0) in planned.subtasks


# ---- through the coordinator ---------------------------------------------------------


@pytest.fixture
def savepoint(tmp_path):
    """The path of a savepoint at parallelism 2, in which one split was handed to each reader."""
    world = running(tmp_path / "old", savepoints=tmp_path)
    world.run_for(3 * INTERVAL_MS)
    world.stop()
    return world.view.outcome("stop").path


def from_savepoint(directory, path, **options):
    return World(directory, execution__state_recovery__path=path, **options)


def test_job_starts_from_a_savepoint_and_its_checkpoint_ids_go_on(tmp_path, savepoint):
    world = from_savepoint(tmp_path / "new", savepoint).start().run_for(INTERVAL_MS)

    assert world.status == "RUNNING"
    assert world.completed == [5]
    context, state = world.source.made[0]
    assert (context.restored, state) == (True, b"s2")
    assert world.log_entries[0].restored_checkpoint == 4
    assert world.log_entries[0].restored_path == savepoint


def test_failure_before_the_first_checkpoint_goes_back_to_the_savepoint(tmp_path, savepoint):
    world = from_savepoint(tmp_path / "new", savepoint).start()
    world.restored.clear()
    world.fail()
    world.restart()

    (restore,) = world.restored[0][1, 0].values()
    assert restore.directory == savepoint
    assert world.source.made[-1][1] == b"s2"


HERE = platform.python_version()


@pytest.mark.parametrize(
    ("serializer", "python"),
    [
        ("pickle-1", "2.7.18"),
        ("msgpack-1", "2.7.18"),
        ("pickle-1", ""),
        ("pickle-1", f"{HERE.rpartition('.')[0]}.99"),
    ],
)
def test_pickles_of_another_minor_python_are_warned_of_once(tmp_path, savepoint, caplog, serializer, python):
    store = SnapshotStore(JOB_ID)
    _, metadata = store.load(savepoint)
    operators = tuple(
        replace(one, states=tuple(replace(state, serializer=serializer) for state in one.states))
        for one in metadata.operators
    )
    path = store.write_metadata(
        (tmp_path / "older").as_uri(), replace(metadata, operators=operators, python_version=python)
    )

    world = from_savepoint(tmp_path / "new", path).start()
    world.fail()
    world.restart()

    told = [record.getMessage() for record in caplog.records if "pickled" in record.getMessage()]
    about = f"values that Python 2.7.18 pickled are read by Python {HERE}, which may fail: state COUNT: hits"
    assert told == ([about] if (serializer, python) == ("pickle-1", "2.7.18") else [])


@pytest.mark.parametrize("path", ["missing", "empty"])
def test_path_that_is_no_snapshot_ends_the_submission_before_anything_is_written(tmp_path, path):
    (tmp_path / "empty").mkdir()
    world = from_savepoint(tmp_path / "new", tmp_path / path).start()

    assert world.status == "FAILED"
    assert isinstance(world.view.error, StateRestoreError)
    assert world.view.restarts == 0
    assert not world.sent
    assert not (tmp_path / "new").exists()


def test_damaged_snapshot_ends_the_submission(tmp_path, savepoint):
    metadata = tmp_path / savepoint.split("/")[-1] / "_metadata"
    metadata.write_bytes(metadata.read_bytes()[:-20])
    world = from_savepoint(tmp_path / "new", savepoint).start()

    assert world.status == "FAILED"
    assert isinstance(world.view.error, StateCorruptError)


def test_program_without_some_state_is_refused_unless_that_is_allowed(tmp_path, savepoint):
    source = FakeSource()
    options = {"source": source, "plan": make_plan(source, count_uid="renamed")}
    world = from_savepoint(tmp_path / "new", savepoint, **options).start()
    assert world.status == "FAILED"
    assert "missing  count" in world.view.error.message

    options["execution__state_recovery__ignore_unclaimed_state"] = "true"
    world = from_savepoint(tmp_path / "new", savepoint, **options).start()
    assert world.status == "RUNNING"


def test_restored_job_can_be_cancelled_while_its_slots_restore(tmp_path, savepoint):
    from raystream.runtime import messages as msg

    world = from_savepoint(tmp_path / "new", savepoint)
    world.silent = {msg.Connect}
    world.start().cancel()

    assert world.status == "CANCELED"


def test_restore_that_does_not_fit_is_one_error_for_all_slots_and_nothing_runs(tmp_path):
    world = World(tmp_path)
    world.silent = {msg.Connect}
    world.start()
    for slot, state in ((0, "hits"), (1, "users")):
        found = [
            RestoredState(
                verdict=verdict, uid="count", operator="COUNT", state=name, entries=slot + 1, size_bytes=10
            )
            for verdict, name in ((Verdict.MATCHED, "both"), (Verdict.MISSING, state))
        ]
        world.report(msg.SlotReady(attempt=Attempt(1), slot=slot, states=tuple(found)))
    world.settle()
    world.run_for(INTERVAL_MS)

    assert (world.status, world.view.restarts) == ("FAILED", 0)
    assert world.commands(msg.Start) == []
    rows = [line.split() for line in world.view.error.message.splitlines()[2:]]
    assert rows == [
        ["matched", "count", "COUNT", "both", "3", "20"],
        ["missing", "count", "COUNT", "hits", "1", "10"],
        ["missing", "count", "COUNT", "users", "2", "10"],
    ]
