"""Of two job masters of one job, one has lost it: whoever does not get the next number of the log."""

import pytest

from raystream.errors import FencedError
from raystream.ids import Attempt, JobStatus
from raystream.protocol.job_past import MASTERS_IN_VAIN_MAX
from raystream.runtime import messages as msg
from raystream.runtime.coordinator_recovery import RECOVERY_RETRY_MS
from raystream.storage.log_entries import MasterStarted, StopAccepted, newest_attempt
from tests.unit.runtime.coordinator_world import (
    INTERVAL_MS,
    RESTART_DELAY_MS,
    World,
    chk,
    running,
)
from tests.unit.runtime.job_lives import next_life, restored


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "checkpoints"


def test_zombie_can_neither_complete_a_checkpoint_nor_commit_nor_restart(directory):
    zombie = running(directory)
    zombie.held = {"append"}
    zombie.run_for(INTERVAL_MS)
    world = next_life(directory)
    entries = world.log_entries

    zombie.release_work("append")

    assert zombie.view.abandoned
    assert isinstance(zombie.view.error, FencedError)
    assert zombie.killed == [0, 1]
    assert not zombie.commands(msg.CheckpointCompleted)
    assert world.log_entries == entries


def test_zombie_that_fails_does_not_restart(directory):
    zombie = running(directory)
    world = next_life(directory)

    zombie.fail(0).restart()

    assert zombie.view.abandoned
    assert world.status == "RUNNING"


def test_zombie_does_not_run_a_job_that_has_finished(directory):
    zombie = running(directory)
    world = next_life(directory).end_input()
    assert world.status == "FINISHED"
    entries = world.log_entries

    zombie.fail(0).restart()

    assert zombie.view.abandoned
    assert world.log_entries == entries


def next_one_cancels_before_it_begins(directory):
    world = World(directory, inherits=True)
    world.held = {"set_up"}
    world.start().cancel("c")
    assert world.status == "CANCELED"


def test_zombie_does_not_begin_a_job_that_was_cancelled_before_it_began(directory):
    zombie = World(directory)
    zombie.held = {"append"}
    zombie.start()
    next_one_cancels_before_it_begins(directory)

    zombie.release_work("append")

    assert isinstance(zombie.view.error, FencedError)
    assert not zombie.sent


def test_zombie_that_could_not_read_the_log_finds_that_its_job_was_cancelled_before_it_began(directory):
    zombie = World(directory, inherits=True)
    zombie.held = {"read"}
    zombie.start()
    next_one_cancels_before_it_begins(directory)

    zombie.release_work("read")

    assert zombie.status == "CANCELED"
    assert not zombie.sent


def test_first_entry_that_a_dead_job_master_has_sent_arrives_late_and_the_next_one_goes_on(directory):
    dead = World(directory)
    dead.held = {"append"}
    dead.start()
    world = World(directory, inherits=True)
    before_its_next_entry(world, lambda: dead.release_work("append"))

    world.start().run_for(RECOVERY_RETRY_MS + RESTART_DELAY_MS)

    assert (world.status, world.view.attempt) == ("RUNNING", 2)
    assert dead.fail(0).restart().view.abandoned


def test_job_that_no_attempt_of_was_logged_begins_under_the_third_job_master(directory):
    for _ in range(2):
        world = World(directory, inherits=True)
        world.held = {"set_up"}
        world.start()

    world = World(directory, inherits=True).start()

    assert world.status == "RUNNING"
    assert (world.view.attempt, world.view.restarts) == (1, 0)


def test_job_that_was_to_stop_before_its_first_attempt_begins_under_the_next_job_master(directory):
    world = World(directory, inherits=True)
    world.held = {"set_up"}
    world.start().stop("s")
    assert StopAccepted(request_id="s") in world.log_entries

    world = World(directory, inherits=True).start()

    assert (world.status, world.view.restarts) == ("RUNNING", 0)


def lose_masters(directory, count=MASTERS_IN_VAIN_MAX):
    """Let job masters begin, and die before an attempt."""
    log = World(directory).storage.log
    last = newest_attempt(log.read())
    for number in range(1, count + 1):
        log.append(MasterStarted(attempt=Attempt(last + number), started_ms=number))


def test_job_whose_masters_are_all_lost_before_an_attempt_fails_and_the_log_ends(directory):
    options = {"restart_strategy__fixed_delay__attempts": 10 * MASTERS_IN_VAIN_MAX}
    running(directory, **options).run_for(INTERVAL_MS)
    lose_masters(directory)

    world = next_life(directory, **options)

    assert (world.status, world.view.error.context) == ("FAILED", {"job_masters": MASTERS_IN_VAIN_MAX})
    assert world.log_entries[-1].status is JobStatus.FAILED
    assert chk(directory, 1).exists(), "another job can go on from it"


def test_job_goes_on_after_fewer_lost_masters_and_they_are_forgotten_with_its_attempt(directory):
    options = {"restart_strategy__fixed_delay__attempts": 10 * MASTERS_IN_VAIN_MAX}
    running(directory, **options)
    for _ in range(2):
        lose_masters(directory, MASTERS_IN_VAIN_MAX - 1)
        assert next_life(directory, **options).status == "RUNNING"


def test_job_whose_masters_are_all_lost_before_its_first_attempt_is_given_up(directory):
    lose_masters(directory)

    world = World(directory, inherits=True).start()

    assert (world.status, world.view.error.context) == ("FAILED", {"job_masters": MASTERS_IN_VAIN_MAX})
    assert len(world.log_entries) == MASTERS_IN_VAIN_MAX


def before_its_next_entry(world, call):
    """Let something happen between the read and the next append of a job master."""
    create = world.storage.log._create

    def late(number, data):
        world.storage.log._create = create
        call()
        return create(number, data)

    world.storage.log._create = late


def test_of_two_that_take_over_one_has_lost(directory):
    running(directory)
    loser, winner = World(directory), World(directory)
    before_its_next_entry(loser, lambda: winner.start().restart())

    loser.start().restart()

    assert isinstance(loser.view.error, FencedError)
    assert not loser.sent
    assert winner.status == "RUNNING"


def test_entry_that_an_older_master_appended_at_the_last_moment_counts(directory):
    zombie = running(directory)
    zombie.held = {"append"}
    zombie.run_for(INTERVAL_MS)
    world = World(directory)
    before_its_next_entry(world, lambda: zombie.release_work("append"))

    world.start().run_for(RECOVERY_RETRY_MS + RESTART_DELAY_MS)

    assert world.status == "RUNNING"
    assert restored(world) == {f"file://{chk(directory, 1)}"}


def test_cancellation_while_the_next_job_master_restores_ends_the_job(directory):
    running(directory).run_for(INTERVAL_MS)
    world = World(directory)
    world.held = {"load_complete"}
    world.start().restart().cancel("c")
    assert not world.commands(msg.Deploy)

    assert world.status == "CANCELED"
    world.release_work("load_complete")
    assert world.status == "CANCELED"
    assert world.view.outcome("c").error is None
