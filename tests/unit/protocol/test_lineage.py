"""`-s latest` goes on where the newest run of a job stopped, whatever clocks say."""

from raystream.ids import CheckpointId, JobId, JobStatus
from raystream.protocol.lineage import GoOnFrom, Run, RunSnapshot, StartAnew, StillRuns, latest_of


def run(job, *ids, started_from=None, at_ms=0, status=None, stopped=False):
    snapshots = [
        RunSnapshot(checkpoint_id=CheckpointId(n), directory=chk(job, n), stop=stopped and n == ids[-1])
        for n in ids
    ]
    return Run(
        job_id=JobId(job),
        started_from=started_from,
        started_ms=at_ms,
        snapshots=tuple(snapshots),
        status=status,
    )


def chk(job, number, base="file:///ck"):
    return f"{base}/{job}/chk-{number}"


def test_nothing_is_known():
    assert isinstance(latest_of([]), StartAnew)


def test_newest_snapshot_of_the_only_run_comes_first():
    assert latest_of([run("a", 1, 2, 3)]) == GoOnFrom(JobId("a"), (chk("a", 3), chk("a", 2), chk("a", 1)))


def test_run_that_another_one_went_on_from_does_not_count_even_if_its_clock_was_ahead():
    earlier = run("a", 1, 2, at_ms=9_000)
    later = run("b", 3, started_from=chk("a", 2), at_ms=1_000)

    assert latest_of([earlier, later]) == GoOnFrom(JobId("b"), (chk("b", 3), chk("a", 2)))


def test_run_without_a_checkpoint_of_its_own_starts_again_from_where_it_started():
    runs = [run("a", 1, 2), run("b", started_from=chk("a", 2), status=JobStatus.FAILED)]

    assert latest_of(runs) == GoOnFrom(JobId("b"), (chk("a", 2),))


def test_descendant_counts_also_when_the_log_of_its_ancestor_has_dropped_the_snapshot():
    runs = [run("a", 7, at_ms=5), run("b", 3, started_from=chk("a", 2))]

    assert latest_of(runs).run == "b"


def test_descendant_is_found_after_the_checkpoint_directory_was_moved():
    runs = [run("a", 1, 2, at_ms=5), run("b", 3, started_from=chk("a", 2, base="s3://moved/to"))]

    assert latest_of(runs).run == "b"


def test_finished_job_is_not_repeated_from_an_ancestor_of_it():
    runs = [run("a", 1, 2), run("b", 3, started_from=chk("a", 2), status=JobStatus.FINISHED)]

    assert isinstance(latest_of(runs), StartAnew)


def test_job_that_was_stopped_with_a_savepoint_goes_on_from_it():
    savepoint = "file:///saved/savepoint-aaaaaa-000000000001"
    stopped = Run(
        job_id=JobId("a"),
        started_from=None,
        started_ms=0,
        snapshots=(RunSnapshot(checkpoint_id=CheckpointId(4), directory=savepoint, stop=True),),
        status=JobStatus.FINISHED,
    )
    assert latest_of([stopped]) == GoOnFrom(JobId("a"), (savepoint,))

    moved = "file:///elsewhere/savepoint-aaaaaa-000000000001"
    assert latest_of([stopped, run("b", 5, started_from=moved)]).run == "b"


def test_run_that_is_alive_is_not_started_a_second_time():
    assert latest_of([run("a", 1)], alive={"a"}) == StillRuns(JobId("a"))


def test_run_that_completed_nothing_and_started_from_nothing_is_a_new_start():
    assert isinstance(latest_of([run("a", status=JobStatus.CANCELED)]), StartAnew)


def test_of_unrelated_runs_the_one_that_started_last_counts():
    assert latest_of([run("a", 1, 2, 3, at_ms=1), run("b", 1, at_ms=2)]).run == "b"
