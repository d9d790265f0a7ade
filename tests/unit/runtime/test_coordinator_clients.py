"""The coordinator answers clients, and keeps to what the job log says."""

import pytest
import xxhash

from raystream.errors import (
    ConfigError,
    FencedError,
    RaystreamError,
)
from raystream.ids import Attempt, CheckpointId
from raystream.protocol.client_requests import RequestOutcome
from raystream.runtime import messages as msg
from raystream.runtime.coordinator_storage import open_storage
from raystream.storage.job_log import DurableJobLog, StaleLogError
from raystream.storage.log_entries import (
    AttemptStarted,
    CancelAccepted,
    CheckpointCompletedEntry,
    SavepointCompleted,
    StopAccepted,
    Terminal,
)
from tests.unit.runtime.coordinator_world import INTERVAL_MS, JOB_ID, REFUSED, World, chk, running


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "checkpoints"


def kinds(entries):
    return [type(entry) for entry in entries]


# ---- clients -------------------------------------------------------------------------


def test_savepoint_is_answered_with_its_path_and_commits_nothing(directory, tmp_path):
    world = running(directory)
    world.savepoint(directory=str(tmp_path / "mine"))

    outcome = world.view.outcome("s")
    assert outcome.path.startswith(f"file://{tmp_path}/mine/savepoint-{JOB_ID[:6]}-")
    assert outcome.error is None
    assert not world.commands(msg.CheckpointCompleted)
    entry = world.log_entries[-1]
    assert entry == SavepointCompleted(
        checkpoint_id=CheckpointId(1),
        directory=outcome.path,
        attempt=Attempt(1),
        request_ids=(outcome.request_id,),
        record=entry.record,
    )


def test_repeated_request_is_one_request(directory, tmp_path):
    world = running(directory, savepoints=tmp_path)
    world.savepoint()
    world.savepoint()

    assert len(world.view.checkpoints) == 1


def test_savepoint_waits_until_the_job_runs(directory, tmp_path):
    world = World(directory, savepoints=tmp_path)
    world.savepoint()
    assert world.view.outcomes == ()
    world.start()

    assert world.view.outcome("s").path


def test_savepoint_without_a_directory_is_refused(directory):
    world = running(directory).savepoint()

    assert isinstance(world.view.outcome("s").error, ConfigError)
    assert world.view.outcome("s").error.message == "savepoint has no directory"


def test_stop_commits_what_the_savepoint_holds_and_ends_the_job(directory, tmp_path):
    world = running(directory, savepoints=tmp_path)
    world.stop()

    outcome = world.view.outcome("stop")
    assert world.status == "FINISHED"
    assert all(c.stop for c in world.commands(msg.TriggerCheckpoint))
    assert all(c.final for c in world.commands(msg.CheckpointCompleted))
    assert kinds(world.log_entries) == [AttemptStarted, StopAccepted, SavepointCompleted, Terminal]
    metadata = open_storage(JOB_ID, world.config).snapshots.load(outcome.path)[1]
    assert metadata.enumerators == {"read": b"s2"}, "the split that no reader had asked for"


def test_second_client_that_stops_the_job_gets_the_savepoint_of_the_first(directory, tmp_path):
    world = running(directory, savepoints=tmp_path)
    world.silent = {msg.TriggerCheckpoint}
    world.stop("first").stop("second").stop("by name", world.config.checkpointing.savepoint_directory)
    world.stop("elsewhere", "file:///elsewhere")
    assert [outcome.request_id for outcome in world.view.outcomes] == ["elsewhere"]
    assert "another directory" in world.view.outcome("elsewhere").error.message

    for slot in (0, 1):
        for vertex in world.plan.vertices:
            world.ack(world.commands(msg.TriggerCheckpoint)[-1].checkpoint_id, vertex.id, slot)
    world.settle()
    assert world.status == "FINISHED"
    paths = {world.view.outcome(name).path for name in ("first", "second", "by name")}
    assert len(paths) == 1
    assert all(paths)
    assert world.stop("afterwards").view.outcome("afterwards").path in paths


def test_stop_whose_savepoint_fails_leaves_the_job_running(directory, tmp_path):
    world = running(directory, savepoints=tmp_path)
    world.faults = {"write_metadata": [REFUSED]}
    world.stop()

    assert world.status == "RUNNING"
    assert world.view.outcome("stop").error.message.endswith("and the job goes on: store refused")
    assert world.commands(msg.CheckpointAborted)
    assert world.run_for(2 * INTERVAL_MS).completed, "checkpoints go on"


def test_failure_after_a_complete_stop_savepoint_only_finishes_the_commits(directory, tmp_path):
    world = running(directory, savepoints=tmp_path)
    world.silent = {msg.CheckpointCompleted}
    world.stop()
    assert world.view.outcome("stop").path
    starts = len(world.commands(msg.Start))
    world.lose(0)
    world.restart()

    assert world.status == "FINISHED"
    assert len(world.commands(msg.Start)) == starts, "no record is processed any more"
    (restore,) = world.restored[0][1, 0].values()
    assert restore.directory == world.view.outcome("stop").path


def test_cancelled_job_keeps_its_checkpoints_or_not_as_configured(directory):
    world = running(directory).run_for(INTERVAL_MS)
    world.cancel()
    assert world.status == "CANCELED"
    assert world.view.outcome("c") == RequestOutcome(request_id="c")
    assert chk(directory, 1).exists()
    assert kinds(world.log_entries)[-2:] == [CancelAccepted, Terminal]

    option = {"execution.checkpointing.externalized_checkpoint_retention": "delete-on-cancellation"}
    other = running(directory.parent / "other", **option).run_for(INTERVAL_MS).cancel()
    assert other.status == "CANCELED"
    assert not list((directory.parent / "other").glob("*/chk-*"))


@pytest.mark.parametrize("phase", [msg.Deploy, msg.Connect])
def test_job_can_be_cancelled_while_it_is_deployed_and_restored(directory, phase):
    world = World(directory)
    world.silent = {phase}
    world.start()
    assert world.status == "CREATED"
    world.cancel()

    assert world.status == "CANCELED"
    assert len(world.commands(msg.StopAttempt)) == 2
    assert not list(directory.glob("*/probe-*"))


@pytest.mark.parametrize("work", ["load_initial", "discover", "set_up", "append"])
def test_job_can_be_cancelled_while_it_is_prepared(directory, work):
    world = World(directory)
    world.held = {work}
    world.start()
    world.cancel()
    world.release_work(work)

    assert world.status == "CANCELED"
    assert not world.commands(msg.Deploy)
    assert not list(directory.glob("*/probe-*"))


def test_requests_to_a_job_that_has_ended_are_answered(directory, tmp_path):
    world = running(directory, savepoints=tmp_path)
    world.end_input()
    world.savepoint().stop().cancel()

    assert all(isinstance(outcome.error, RaystreamError) for outcome in world.view.outcomes)
    assert len(world.view.outcomes) == 3


# ---- the log -------------------------------------------------------------------------


def test_requests_to_a_job_that_lives_on_elsewhere_are_refused(directory, tmp_path):
    world = running(directory, savepoints=tmp_path).run_for(INTERVAL_MS)
    other = open_storage(JOB_ID, world.config).log
    other.read()
    other.append(AttemptStarted(attempt=Attempt(2)))
    world.run_for(INTERVAL_MS)
    assert world.view.abandoned

    world.savepoint().stop().cancel()

    assert [outcome.request_id for outcome in world.view.outcomes] == ["s", "stop", "c"]
    assert all(isinstance(outcome.error, FencedError) for outcome in world.view.outcomes)


def test_job_stops_at_once_when_a_newer_attempt_owns_the_log(directory):
    world = running(directory).run_for(INTERVAL_MS)
    other = open_storage(JOB_ID, world.config).log
    other.read()
    other.append(AttemptStarted(attempt=Attempt(2)))
    sent = len(world.sent)
    world.run_for(INTERVAL_MS)

    assert world.view.abandoned
    assert world.status == "FAILED", "whoever waits for this process waits no longer"
    assert isinstance(world.view.error, FencedError)
    assert world.completed == [1]
    assert chk(directory, 1).exists()
    assert world.killed == [0, 1]
    assert world.released
    assert not [c for _, c in world.sent[sent:] if isinstance(c, msg.CheckpointCompleted)]
    assert world.coordinator.next_deadline_ms() is None


def test_entry_of_unknown_outcome_is_asked_about_until_it_is_known(directory):
    world = running(directory)
    world.faults = {"append": [StaleLogError("who knows")], "append_again": [StaleLogError("still not")]}
    world.run_for(INTERVAL_MS)
    assert world.completed == []
    world.run_for(1_000)

    assert world.completed[0] == 1
    entries = [e for e in world.log_entries if isinstance(e, CheckpointCompletedEntry)]
    assert len({e.checkpoint_id for e in entries}) == len(entries)


def test_entry_that_was_written_although_its_outcome_was_unknown_is_not_written_twice(directory):
    world = running(directory)
    log = world.storage.log

    def append_and_forget():
        append = DurableJobLog.append

        def forgetful(self, entry):
            append(self, entry)
            self._next = None
            DurableJobLog.append = append
            raise StaleLogError("answer was lost")

        DurableJobLog.append = forgetful

    append_and_forget()
    world.run_for(INTERVAL_MS)

    assert world.completed == [1]
    assert sum(isinstance(entry, CheckpointCompletedEntry) for entry in log.read()) == 1


def test_checkpoint_whose_entry_is_certainly_not_there_is_given_up(directory):
    world = running(directory)
    world.faults = {"append": [REFUSED]}
    world.run_for(INTERVAL_MS)

    assert world.view.checkpoints[0].failure == "finalize-failed: store refused"
    assert not chk(directory, 1).exists()
    assert world.status == "RUNNING"


def test_attempt_whose_entry_can_not_be_written_is_started_again(directory):
    world = World(directory)
    world.faults = {"append": [REFUSED]}
    world.start()
    world.restart()

    assert world.status == "RUNNING"
    assert [entry.attempt for entry in world.log_entries] == [2]


def test_log_entries_of_deleted_checkpoints_are_pruned(directory):
    world = running(directory).run_for(5 * INTERVAL_MS)
    entries = [e for e in world.log_entries if isinstance(e, CheckpointCompletedEntry)]

    assert len(world.completed) == 5
    assert [entry.checkpoint_id for entry in entries] == [5]


# ---- storage -------------------------------------------------------------------------


def test_every_slot_of_every_attempt_reads_a_probe_that_is_gone_when_the_job_has_ended(directory):
    world = running(directory)
    world.lose(1)  # Its successor may be on a node that does not have the disk.
    world.settle()
    world.restart()
    deploys = world.commands(msg.Deploy)
    (probe,) = {deploy.probe for deploy in deploys}

    assert [(deploy.attempt, deploy.slot) for deploy in deploys] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert open_storage(JOB_ID, world.config).directory.fs.exists(probe)
    world.end_input()
    assert world.status == "FINISHED"
    assert not list(directory.glob("*/probe-*"))


def test_probe_has_served_when_every_slot_of_some_attempt_has_read_it(directory):
    """An attempt that ends before has shown nothing: the disk may never have been shared."""
    world = World(directory)
    world.silent = {msg.Deploy}
    world.start()
    world.lose(1)
    world.restart()
    world.silent = {msg.StopAttempt}
    world.lose(0)
    world.lose(1)
    world.restart()
    assert world.status == "RUNNING"
    world.silent = set()
    world.fail()
    world.restart()

    served = {deploy.attempt: deploy.probe_served for deploy in world.commands(msg.Deploy)}
    assert served == {1: False, 2: False, 3: False, 4: True}


def test_program_is_stored_before_the_first_attempt_and_its_checksum_is_in_the_log(directory):
    world = World(directory)
    world.held = {"append"}
    world.start()
    stored = directory / JOB_ID / "graph"
    assert world.storage.directory.load_program() == b"program"

    world.release_work("append")
    world.fail()
    world.restart()
    attempts = [entry for entry in world.log_entries if isinstance(entry, AttemptStarted)]
    assert [entry.program_checksum for entry in attempts] == [xxhash.xxh3_64_hexdigest(b"program")] * 2

    world.end_input()
    assert not stored.exists(), "a job that has ended is never recovered"


def test_job_without_durable_checkpoints_stores_no_program(directory):
    world = running(directory, execution__checkpointing__interval="off")

    assert not directory.exists()
    assert world.status == "RUNNING"


def test_directory_that_is_set_up_late_for_an_attempt_that_was_given_up_is_set_up_once(directory):
    world = World(directory)
    world.held = {"set_up"}
    world.start()
    world.coordinator._attempt_failed(Attempt(1), REFUSED)
    world.restart()
    world.release_work("set_up")

    assert world.status == "RUNNING"
    assert world.view.attempt == 2
    assert len(list(directory.glob("*/probe-*"))) == 1
    assert (directory / JOB_ID / "graph").exists()


def test_files_of_older_attempts_are_swept_while_the_attempt_runs(directory):
    world = running(directory).run_for(2 * INTERVAL_MS)
    leftover = chk(directory, 1)
    assert not leftover.exists(), "the second checkpoint made it superfluous"
    leftover.mkdir()
    (leftover / "state").write_bytes(b"x")
    world.held = {"sweep"}
    world.fail()
    world.restart()
    assert world.status == "RUNNING"
    world.silent = {msg.TriggerCheckpoint}
    world.run_for(INTERVAL_MS)
    unfinished = chk(directory, 3)
    unfinished.mkdir()

    world.release_work("sweep")

    assert not leftover.exists()
    assert chk(directory, 2).exists()
    assert unfinished.exists(), "it is of the attempt that runs"
    assert world.log_entries[-1].newest_checkpoint == 2


def test_checkpoint_directory_that_can_not_be_written_fails_the_job_at_once(tmp_path):
    (tmp_path / "file").write_text("not a directory")
    world = World(tmp_path / "file" / "checkpoints").start()

    assert world.status == "FAILED"
    assert isinstance(world.view.error, ConfigError)
    assert not world.sent
