"""A job master that begins after another one goes on where the job log says that the job is."""

import pytest

from raystream.errors import StorageError
from raystream.handles import SharedFile
from raystream.ids import Attempt, JobStatus
from raystream.protocol.checkpoint_ids import IDS_AHEAD_MAX
from raystream.runtime import messages as msg
from raystream.runtime.coordinator_recovery import RECOVERY_RETRY_MS, RECOVERY_TRIES_MAX
from raystream.storage.log_entries import AttemptStarted, CheckpointCompletedEntry, MasterStarted, Terminal
from tests.unit.runtime.coordinator_world import (
    INTERVAL_MS,
    JOB_ID,
    REFUSED,
    RESTART_DELAY_MS,
    World,
    chk,
    running,
)
from tests.unit.runtime.job_lives import next_life, restored

NEXT_ID = IDS_AHEAD_MAX + 1
PATH = "execution__state_recovery__path"


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "checkpoints"


def kinds(entries):
    return [type(entry) for entry in entries]


# ---- the way back ------------------------------------------------------------------


def test_job_goes_on_from_its_newest_checkpoint_under_ids_that_nobody_has_given(directory):
    running(directory).run_for(2 * INTERVAL_MS)

    world = next_life(directory)

    assert world.status == "RUNNING"
    assert (world.view.attempt, world.view.restarts) == (2, 1)
    assert restored(world) == {f"file://{chk(directory, 2)}"}
    world.run_for(INTERVAL_MS)
    assert world.completed == [1, 2, 2 + NEXT_ID]
    assert not chk(directory, 2).exists(), "retention goes on"


def test_job_that_had_no_checkpoint_begins_anew(directory):
    running(directory)

    world = next_life(directory)

    assert (world.status, world.view.attempt) == ("RUNNING", 2)
    assert not any(world.restored.values())


def test_log_is_taken_over_before_anything_is_decided(directory):
    running(directory).run_for(INTERVAL_MS)
    next_life(directory)

    world = next_life(directory)

    assert kinds(world.log_entries) == [
        AttemptStarted,
        CheckpointCompletedEntry,
        MasterStarted,
        AttemptStarted,
        MasterStarted,
        AttemptStarted,
    ]
    assert [entry.attempt for entry in world.log_entries] == [1, 1, 2, 2, 3, 3]


def test_number_of_an_attempt_that_never_began_is_not_given_again(directory):
    running(directory)
    dies = World(directory)
    dies.held = {"load_initial", "load_complete"}
    dies.start().restart()

    assert next_life(directory).view.attempt == 3


def test_job_without_a_checkpoint_of_its_own_begins_again_with_what_it_started_from(directory, tmp_path):
    first = running(tmp_path / "first")
    first.run_for(INTERVAL_MS)
    path = chk(tmp_path / "first", 1)
    options = {PATH: path, "job_id": "f" * 32}
    running(directory, **options)

    world = next_life(directory, **options | {PATH: "off"})

    assert world.status == "RUNNING"
    assert restored(world) == {f"file://{path}"}
    assert world.view.started_from == f"file://{path}"
    assert path.exists()


def test_counts_history_and_time_of_the_job_go_on(directory):
    dies = running(directory)
    dies.report(msg.Progress(attempt=Attempt(1), slot=0, records_in=10, records_out=7, dead_letters=2))
    dies.run_for(2 * INTERVAL_MS)
    shown = {record.checkpoint_id: record for record in dies.view.checkpoints}

    world = World(directory)
    world.clock.now_ms = 5 * INTERVAL_MS
    world.start().restart()

    view = world.view
    assert (view.records_in, view.records_out, view.dead_letters) == (10, 7, 2)
    assert view.duration_ms == 5 * INTERVAL_MS + RESTART_DELAY_MS
    assert [record.checkpoint_id for record in view.checkpoints] == [1, 2]
    for record in view.checkpoints:
        before = shown[record.checkpoint_id]
        assert (record.status, record.purpose, record.attempt) == ("completed", "periodic", 1)
        assert (record.triggered_ms, record.size_bytes, record.path) == (
            before.triggered_ms, before.size_bytes, before.path,
        )  # fmt: skip


def test_program_and_graph_stay_until_the_archive_is_written(directory):
    world = running(directory)
    graph = directory / JOB_ID / "graph"
    world.held = {"leave"}
    world.end_input()
    assert graph.exists(), "a job master that dies now is followed by one that needs it"

    world.release_work("leave")

    assert not graph.exists()


# ---- failures and restarts -------------------------------------------------------------


def test_death_of_the_job_master_is_a_failure_that_the_restart_strategy_counts(directory):
    options = {"restart_strategy__fixed_delay__attempts": 2}
    running(directory, **options)
    for number in (1, 2):
        assert next_life(directory, at_ms=1_000 * number, **options).status == "RUNNING"

    world = next_life(directory, at_ms=3_000, **options)

    assert world.status == "FAILED"
    assert world.view.error.message == "process of the job master was lost"
    assert "2 restarts" in world.view.gave_up


def test_failures_of_attempts_before_the_death_count_too(directory):
    options = {"restart_strategy__fixed_delay__attempts": 2}
    running(directory, **options).fail(0).restart()
    assert next_life(directory, at_ms=1_000, **options).status == "RUNNING"

    assert next_life(directory, at_ms=2_000, **options).status == "FAILED"


def test_store_that_does_not_answer_is_asked_until_it_does(directory):
    running(directory).run_for(INTERVAL_MS)
    world = World(directory)
    world.faults = {"read": [REFUSED] * 3}
    world.start()
    assert world.view.waiting_for == "the job log: store refused"

    world.run_for(3 * RECOVERY_RETRY_MS).restart()

    assert (world.status, world.view.waiting_for) == ("RUNNING", "")
    assert kinds(world.log_entries).count(MasterStarted) == 1


def test_store_that_never_answers_ends_the_waiting_and_touches_nothing(directory):
    running(directory).run_for(INTERVAL_MS)
    world = World(directory)
    world.faults = {"read": [StorageError("store refused") for _ in range(RECOVERY_TRIES_MAX)]}
    world.start().run_for(RECOVERY_TRIES_MAX * RECOVERY_RETRY_MS)

    assert world.view.abandoned
    assert kinds(world.log_entries) == [AttemptStarted, CheckpointCompletedEntry]


def test_damaged_log_is_nothing_to_go_on_from(directory):
    running(directory).run_for(INTERVAL_MS)
    (directory / JOB_ID / "log" / "00000001").write_bytes(b'{"raystream":')

    world = World(directory).start()

    assert world.view.abandoned
    assert "damaged" in world.view.error.message
    assert not world.sent


def test_damaged_newest_checkpoint_is_found_by_the_attempt_that_restores_it(directory):
    options = {"execution__checkpointing__num_retained": 2}
    running(directory, **options).run_for(2 * INTERVAL_MS)
    (chk(directory, 2) / "_metadata").unlink()

    world = next_life(directory, **options)

    assert world.status == "RUNNING"
    assert restored(world) == {f"file://{chk(directory, 1)}"}
    again = next_life(directory, **options)
    assert restored(again) == {f"file://{chk(directory, 1)}"}, "what was passed over stays passed over"
    assert [(r.checkpoint_id, r.status) for r in again.view.checkpoints] == [(1, "completed"), (2, "damaged")]


# ---- ends ------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["FINISHED", "CANCELED", "FAILED"])
def test_job_that_has_ended_never_runs_again(directory, status):
    options = {"restart_strategy__fixed_delay__attempts": 0}
    world = running(directory, **options).run_for(INTERVAL_MS)
    {"FINISHED": world.end_input, "CANCELED": world.cancel, "FAILED": world.fail}[status]()
    assert world.status == status
    entries = world.log_entries

    later = next_life(directory, **options)

    assert later.status == status
    assert later.coordinator.finished
    assert not later.sent
    assert later.log_entries == entries
    assert chk(directory, 1).exists() == (status != "FINISHED")


def test_end_that_was_logged_and_not_cleaned_up_is_cleaned_up(directory):
    dies = running(directory).run_for(INTERVAL_MS)
    dies.held = {"delete", "sweep", "leave"}
    dies.end_input()
    assert dies.log_entries[-1] == Terminal(status=JobStatus.FINISHED)
    assert list(directory.glob("*/chk-*"))

    world = next_life(directory)

    assert world.status == "FINISHED"
    assert not world.sent
    assert [path.name for path in (directory / JOB_ID).iterdir()] == ["archive"] or not list(
        directory.glob("*/chk-*")
    )
    assert (directory / JOB_ID / "archive").exists()


def test_accepted_cancellation_is_carried_out(directory):
    dies = running(directory).run_for(INTERVAL_MS)
    dies.silent = {msg.StopAttempt}
    dies.cancel("c")

    world = World(directory).start()

    assert world.status == "CANCELED"
    assert not world.commands(msg.Deploy)
    assert world.log_entries[-1] == Terminal(status=JobStatus.CANCELED)
    assert world.cancel("c").view.outcome("c").error is None


def test_after_the_final_checkpoint_only_the_commits_are_made(directory):
    dies = running(directory)
    dies.silent = {msg.CheckpointCompleted}
    dies.end_input()
    assert dies.status == "RUNNING"

    world = next_life(directory)

    assert world.status == "FINISHED"
    assert len(world.commands(msg.Connect)) == 2, "restoring commits"
    assert not world.commands(msg.Start)


def test_after_a_stop_savepoint_only_the_commits_are_made_and_its_client_is_answered(directory, tmp_path):
    dies = running(directory, savepoints=tmp_path)
    dies.silent = {msg.CheckpointCompleted}
    dies.stop("stop")
    outcome = dies.view.outcome("stop")

    world = next_life(directory, savepoints=tmp_path)

    assert world.status == "FINISHED"
    assert not world.commands(msg.Start)
    assert world.stop("stop").view.outcome("stop") == outcome


def test_stop_whose_savepoint_was_not_complete_is_made_when_it_is_asked_for_again(directory, tmp_path):
    dies = running(directory, savepoints=tmp_path)
    dies.silent = {msg.TriggerCheckpoint}
    dies.stop("stop")

    world = next_life(directory, savepoints=tmp_path)
    assert world.status == "RUNNING"

    world.stop("stop")
    assert world.status == "FINISHED"
    assert world.view.outcome("stop").error is None


def test_request_waits_until_the_log_is_read(directory):
    running(directory).run_for(INTERVAL_MS)
    world = World(directory)
    world.held = {"read"}
    world.start().cancel("c")
    assert not world.view.outcomes

    world.release_work("read")

    assert world.status == "CANCELED"
    assert world.view.outcome("c").error is None


def test_savepoint_that_was_complete_is_not_taken_again_for_its_client(directory, tmp_path):
    dies = running(directory, savepoints=tmp_path)
    outcome = dies.savepoint("s").view.outcome("s")

    world = next_life(directory, savepoints=tmp_path).savepoint("s")

    assert world.view.outcome("s") == outcome
    assert not world.commands(msg.TriggerCheckpoint)


# ---- files ---------------------------------------------------------------------------


def test_shared_files_of_all_retained_checkpoints_survive_and_go_when_they_do(directory):
    options = {"execution__checkpointing__num_retained": 2}
    shared = directory / JOB_ID / "shared"
    files = {
        n: SharedFile(name=f"c{n}-a1-file", local="x", size_bytes=1, checksum="0" * 16, created_by=n)
        for n in (1, 2)
    }
    dies = World(directory, **options)
    dies.shared = {(1, 0): (files[1],), (2, 0): (files[1], files[2])}
    dies.start()
    shared.mkdir(parents=True)
    for file in files.values():
        (shared / file.name).write_bytes(b"x")
    dies.run_for(2 * INTERVAL_MS)
    (shared / "c1-a1-leftover").write_bytes(b"x")

    world = World(directory, **options)
    world.shared = {(2 + NEXT_ID, 0): (files[2],)}
    world.start().restart()
    assert {path.name for path in shared.iterdir()} == {file.name for file in files.values()}

    world.run_for(3 * INTERVAL_MS)
    assert not list(shared.iterdir())


def test_claimed_snapshot_is_deleted_by_the_life_that_makes_it_superfluous(directory, tmp_path):
    first = running(tmp_path / "first")
    first.run_for(INTERVAL_MS).cancel()
    path = chk(tmp_path / "first", 1)
    options = {PATH: path, "execution__state_recovery__claim_mode": "claim", "job_id": "f" * 32}
    running(directory, **options)

    world = next_life(directory, **options)
    assert (world.status, path.exists()) == ("RUNNING", True)
    assert restored(world) == {f"file://{path}"}

    world.run_for(INTERVAL_MS)
    assert world.view.checkpoints[-1].status == "completed"
    assert not path.exists()
