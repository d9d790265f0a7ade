"""Nothing of a job is deleted while a process of it may still write, and nothing that hangs keeps it."""

import threading

import pytest

from raystream.clock import SystemClock
from raystream.runtime.coordinator_end import ARCHIVE_WAIT_MS, DELETION_WAIT_MS, RELEASE_WAIT_MS
from raystream.runtime.local_cluster import LocalSlots
from raystream.runtime.mailbox import Mailbox
from tests.unit.runtime.coordinator_world import INTERVAL_MS, JOB_ID, RESTART_DELAY_MS, World, chk, running

PATIENCE_S = 60.0


@pytest.fixture
def world(tmp_path) -> World:
    """A job whose input has ended, and whose slots do not die."""
    made = running(tmp_path)
    made.run_for(INTERVAL_MS)
    made.silent = {"release"}
    made.end_input()
    assert made.released
    return made


def test_files_stay_until_the_processes_of_the_slots_are_gone(world, tmp_path):
    assert world.status == "RUNNING"
    assert chk(tmp_path, 2).exists()

    world.inbox.append(world.told_released)
    world.settle()

    assert world.status == "FINISHED"
    assert not list(tmp_path.glob("*/chk-*"))


def test_processes_that_never_go_do_not_keep_the_job_from_ending(world, tmp_path, caplog):
    world.run_for(RELEASE_WAIT_MS - 1)
    assert world.status == "RUNNING"

    world.run_for(1)

    assert world.status == "FINISHED"
    assert "may be left" in caplog.text
    assert not list(tmp_path.glob("*/chk-*"))


def test_processes_that_go_late_end_the_job_once(world, tmp_path):
    world.run_for(RELEASE_WAIT_MS)
    archive = (tmp_path / JOB_ID / "archive").read_bytes()

    world.inbox.append(world.told_released)
    world.settle()

    assert world.status == "FINISHED"
    assert (tmp_path / JOB_ID / "archive").read_bytes() == archive


@pytest.mark.parametrize("hung", ["delete", "sweep"])
def test_deletion_that_hangs_does_not_keep_the_job_from_ending(tmp_path, caplog, hung):
    world = running(tmp_path)
    world.run_for(INTERVAL_MS)
    world.held = {hung}
    world.end_input()
    world.run_for(DELETION_WAIT_MS - 1)
    assert world.status == "RUNNING"

    world.run_for(1)

    assert world.status == "FINISHED"
    assert (tmp_path / JOB_ID / "archive").exists()
    assert "deletions have not ended in time" in caplog.text

    world.release_work(hung)
    assert world.status == "FINISHED"


def test_archive_that_hangs_does_not_keep_the_job_from_ending(tmp_path, caplog):
    world = running(tmp_path)
    world.held = {"leave"}
    world.end_input()
    world.run_for(ARCHIVE_WAIT_MS - 1)
    assert world.status == "RUNNING"

    world.run_for(1)

    assert world.status == "FINISHED"
    assert "archive of the job was not written in time" in caplog.text


def test_whatever_only_deletes_runs_in_threads_on_which_no_attempt_waits(tmp_path):
    world = running(tmp_path)
    world.run_for(2 * INTERVAL_MS)
    world.held = {"sweep", "delete"}
    for attempt in range(2, 6):
        world.fail()
        world.run_for(RESTART_DELAY_MS)
        assert (world.status, world.coordinator.view().attempt) == ("RUNNING", attempt)
    world.held = set()
    world.end_input()

    assert set(world.deleting) >= {"sweep", "delete"}
    assert world.status == "FINISHED"


def test_threads_of_local_slots_are_waited_for():
    order, begun, go_on, posted = [], threading.Event(), threading.Event(), threading.Event()
    mailbox = Mailbox(posted.set)
    slots = LocalSlots(SystemClock(), mailbox, threading.Event())
    slots.acquire([0])
    mailbox.take()
    posted.clear()
    _, threads = slots._slots[0]

    def upload():
        begun.set()
        assert go_on.wait(PATIENCE_S)
        order.append("written")

    threads.uploads.submit(upload, lambda _: None)
    assert begun.wait(PATIENCE_S)
    slots.release(lambda: order.append("released"))
    go_on.set()
    assert posted.wait(PATIENCE_S)
    mailbox.run_pending()

    assert order == ["written", "released"]
