"""Counts go on exactly when a job is started again from a snapshot, at any parallelism."""

import pytest

from raystream import JobStatus
from raystream.cli.main import main
from tests.access_logs import (
    Expected,
    add_count,
    assert_counted_exactly_once,
    assert_published_exactly_once,
    lines_of,
)
from tests.held_source import HeldSource
from tests.published import counts_by_key, records
from tests.ray.conftest import PATIENCE_S, completed, handle_of, wait_until


@pytest.fixture
def counting(environment, tmp_path, go):
    """Start the main job over logs of many splits, from a snapshot if there is one; it ends after `go`."""
    expected = Expected()
    for number in range(4):
        expected.append_to(tmp_path / f"{number}.log", lines=30_000, seed=number)

    def start(parallelism: int, path: str | None = None, out: str = "out"):
        options = {} if path is None else {"execution_state_recovery_path": path}
        env = environment(parallelism, **options)
        add_count(env, HeldSource(lines_of(tmp_path / "*.log"), go, records=6), tmp_path / out)
        client = env.submit("count, stop and go on")
        return client, handle_of(client.job_id)

    start.expected = expected
    return start


def count_for_a_while(handle) -> None:
    """Wait until some output is published, which is long before the log is read."""
    before = completed(handle.view())
    wait_until(handle, lambda view: completed(view) >= before + 2)


def test_counts_go_on_from_savepoints_at_2_then_4_then_1(counting, tmp_path, go):
    client, handle = counting(2)
    count_for_a_while(handle)
    first = client.stop(str(tmp_path / "savepoints"))
    client.wait()
    moved = (tmp_path / "savepoints").rename(tmp_path / "moved")
    early = len(records(tmp_path / "out"))

    client, handle = counting(4, str(moved / first.rsplit("/", 1)[-1]))
    count_for_a_while(handle)
    second = client.stop(str(tmp_path / "savepoints"))
    client.wait()
    later = len(records(tmp_path / "out"))

    client, _ = counting(1, second)
    go.touch()
    result = client.wait(PATIENCE_S)

    assert 0 < early < later < sum(counting.expected.hits.values()), "each run has counted a part"
    assert result.status is JobStatus.FINISHED
    assert_counted_exactly_once(tmp_path / "out", counting.expected)


def test_counts_go_on_from_the_checkpoint_that_a_cancelled_job_retains(counting, tmp_path, go):
    client, handle = counting(2)
    count_for_a_while(handle)
    client.cancel()
    retained = [one.path for one in client.checkpoints() if one.status == "completed"][-1]

    client, _ = counting(4, retained)
    go.touch()
    result = client.wait(PATIENCE_S)

    assert result.status is JobStatus.FINISHED
    # What the cancelled job had pre-committed for a checkpoint that never completed is its own, and stays.
    assert_published_exactly_once(tmp_path / "out", counting.expected)


def test_savepoint_leaves_its_job_alone_and_another_goes_on_from_it(counting, tmp_path, go):
    client, handle = counting(2)
    count_for_a_while(handle)
    savepoint = client.savepoint(str(tmp_path / "savepoints"))
    count_for_a_while(handle)
    client.cancel()

    other, _ = counting(1, savepoint, out="other")
    go.touch()
    assert other.wait(PATIENCE_S).status is JobStatus.FINISHED

    # The savepoint was taken when each path had as many hits as the other job did not count.
    before, after = counts_by_key(tmp_path / "out"), counts_by_key(tmp_path / "other")
    beyond = 0
    for path, n in counting.expected.hits.items():
        first, second = before.get(path, []), after.get(path, [])
        assert first == list(range(1, len(first) + 1))
        assert second == list(range(n - len(second) + 1, n + 1))
        beyond += len(first) + len(second) - n
    assert beyond > 0, "the first job did not go on"
    rejected = [*records(tmp_path / "out" / "rejected"), *records(tmp_path / "other" / "rejected")]
    places = {(row["file"], row["offset"]) for row in rejected}
    assert places == {row[:2] for row in counting.expected.rejected}


def test_running_job_is_rescaled_from_2_to_4_to_1_in_one_command_each(counting, tmp_path, go, capsys):
    client, handle = counting(2)
    count_for_a_while(handle)
    first = {worker.pid for worker in handle.workers()}

    downtimes = []
    for parallelism in (4, 1):
        assert main(["rescale", client.job_id, "-p", str(parallelism)]) == 0
        printed = capsys.readouterr()
        assert printed.out == ""
        said = f"job {client.job_id} has parallelism {parallelism}; downtime "
        assert said in printed.err
        downtimes.append(float(printed.err.partition(said)[2].split()[0]))
        view = handle.view()
        assert (view.status, view.parallelism) == (JobStatus.RUNNING, parallelism)
        workers = handle.workers()
        assert [worker.slot for worker in workers] == list(range(parallelism))
        assert workers[0].pid in first, "live workers are used again"
    early = len(records(tmp_path / "out"))
    go.touch()
    result = client.wait(PATIENCE_S)

    assert early < sum(counting.expected.hits.values()), "it was rescaled while it counted"
    assert result.status is JobStatus.FINISHED
    assert all(downtime < PATIENCE_S for downtime in downtimes)
    assert_counted_exactly_once(tmp_path / "out", counting.expected)
