"""What is told of a running job, and when."""

from dataclasses import replace

from raystream.cli.progress import Progress, summary
from raystream.errors import SlotLostError, UserCodeError
from raystream.ids import JobStatus
from raystream.runtime.coordinator_view import CheckpointCounts
from tests.unit.cli.fakes import CREATED, JOB_ID, checkpoint, view


def test_status_line_has_rates_totals_the_last_checkpoint_and_restarts():
    progress = Progress(now_ms=0)
    progress.status(view(), 1_000)
    moved = view(
        records_in=1_204_331, records_out=4_000, restarts=2, checkpoints=(checkpoint(11), checkpoint(12))
    )

    assert progress.status(moved, 3_000).split("  ") == [
        "RUNNING",
        "in 1.20M (602k/s)",
        "out 4,000 (2,000/s)",
        "2 restarts",
        "chk-12 84 ms 2.0 KiB",
        "0:00:03",
    ]


def test_rates_are_those_of_the_last_seconds():
    progress = Progress(now_ms=0)
    for second in range(10):
        progress.status(view(records_in=second * 1_000), second * 1_000)
    for second in range(10, 20):
        stopped = progress.status(view(records_in=9_000), second * 1_000)

    assert "in 9,000 (0/s)" in stopped


def test_counters_that_arrive_once_a_second_do_not_make_the_rate_flicker():
    progress = Progress(now_ms=0)
    shown = [
        progress.status(view(records_in=half // 2 * 1_000), half * 500).split("  ")[1] for half in range(20)
    ]

    assert {text.partition("(")[2] for text in shown[2:]} == {"1,000/s)"}


def test_rate_is_not_negative_when_counters_are_set_back():
    progress = Progress(now_ms=0)
    progress.status(view(records_in=5_000), 1_000)

    assert "in 0 (0/s)" in progress.status(view(records_in=0), 2_000)


def test_pending_and_failed_checkpoints_are_not_the_last_one():
    checkpoints = (checkpoint(3), checkpoint(4, "failed", failure="declined"), checkpoint(5, "pending"))

    assert "chk-3 " in Progress(now_ms=0).status(view(checkpoints=checkpoints), 0)


def test_checkpoint_that_refers_to_older_files_shows_what_it_has_written_of_its_size():
    checkpoints = (checkpoint(3, size_bytes=3 << 30, uploaded_bytes=5 << 20),)

    assert "chk-3 84 ms 5.0 MiB of 3.0 GiB" in Progress(now_ms=0).status(view(checkpoints=checkpoints), 0)


def test_lines_tell_each_change_of_status_and_each_checkpoint_once():
    progress = Progress(now_ms=0)
    views = [
        CREATED,
        view(),
        view(),
        view(checkpoints=(checkpoint(1),), records_in=7),
        view(JobStatus.FAILING),
    ]

    assert [line for number, one in enumerate(views) for line in progress.lines(one, number)] == [
        f"job {JOB_ID} is CREATED: numbers",
        f"job {JOB_ID} is RUNNING: numbers",
        "chk-1 84 ms 2.0 KiB: 7 in, 0 out, 0 restarts",
        f"job {JOB_ID} is FAILING: numbers",
    ]


def test_lines_tell_how_far_the_job_is_every_few_seconds():
    progress = Progress(now_ms=0)
    progress.lines(view(), 0)

    assert progress.lines(view(), 4_999) == []
    (line,) = progress.lines(view(), 5_000)
    assert line.startswith("RUNNING  in 0")
    assert progress.lines(view(), 9_999) == []


def test_restart_is_told_once_with_its_cause():
    progress = Progress(now_ms=0)
    restarted = view(restarts=1, error=SlotLostError("process of a slot is gone", hint="see the log", slot=1))

    assert progress.events(view(), 0) == []
    assert progress.events(restarted, 1) == ["restart 1: process of a slot is gone (slot=1)"]
    assert progress.events(restarted, 2) == []


def test_failure_is_told_once_while_the_next_attempt_is_waited_for():
    progress = Progress(now_ms=0)
    failed = view(JobStatus.RESTARTING, error=UserCodeError("map raised"), restart_in_ms=8_200)
    told = "attempt 1 failed, the next one begins in 8.2 s: map raised"

    assert progress.events(failed, 0) == [told]
    assert progress.events(replace(failed, restart_in_ms=7_000), 1_200) == []
    assert progress.events(view(attempt=2, restarts=1, error=failed.error), 8_200) == [
        "restart 1: map raised"
    ]
    again = replace(failed, attempt=2, restarts=1)
    assert progress.events(replace(again, restart_in_ms=999), 9_000) == [], "it begins at once"
    assert progress.events(replace(again, status=JobStatus.CANCELLING), 9_000) == []
    assert progress.events(again, 9_000) == [told.replace("1", "2", 1)]


def test_waiting_for_resources_is_told_after_five_seconds():
    progress = Progress(now_ms=0)
    waiting = view(JobStatus.CREATED, waiting_for="2 CPUs")

    assert progress.events(waiting, 1_000) == []
    assert progress.events(waiting, 5_999) == []
    assert progress.events(waiting, 6_000) == ["waiting for resources for 0:00:05: 2 CPUs"]
    assert progress.events(waiting, 9_000) == []


def test_wait_that_goes_on_is_told_again_with_the_time_of_the_job_master():
    progress = Progress(now_ms=0)
    waiting = view(JobStatus.CREATED, waiting_for="2 CPUs", waiting_ms=3_600_000)
    progress.events(waiting, 0)
    progress.events(waiting, 6_000)

    assert progress.events(waiting, 65_999) == []
    assert progress.events(waiting, 66_000) == ["waiting for resources for 1:00:00: 2 CPUs"]


def test_short_waits_do_not_add_up():
    progress = Progress(now_ms=0)
    waiting = view(waiting_for="2 CPUs")
    progress.events(waiting, 0)
    progress.events(view(), 4_000)

    assert progress.events(waiting, 5_500) == []


def test_dead_letters_are_told_where_there_are_some():
    ended = view(JobStatus.FINISHED, records_out=5, dead_letters=2, checkpoints=(checkpoint(1),))
    progress = Progress(now_ms=0)
    progress.lines(view(), 0)

    (line,) = [line for line in progress.lines(ended, 1) if line.startswith("chk-1")]
    assert line == "chk-1 84 ms 2.0 KiB: 0 in, 5 out, 2 dead letters, 0 restarts"
    assert "5 out, 2 dead letters, 1 checkpoint" in summary(ended, 0)


def test_summary_tells_how_a_job_ended():
    ended = view(JobStatus.FINISHED, records_in=10_000, records_out=9_990, checkpoints=(checkpoint(1),))

    assert summary(ended, 65_000) == (
        f"job {JOB_ID} is FINISHED: 10,000 records in, 9,990 out, 1 checkpoint, 0 restarts, 0:01:05"
    )
    long_job = replace(ended, checkpoint_counts=CheckpointCounts(completed=1_315, failed=2))
    assert ", 1,315 checkpoints, " in summary(long_job, 65_000)
