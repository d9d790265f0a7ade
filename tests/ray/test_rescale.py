"""Counts go on exactly when a job is started again from a snapshot, at any parallelism."""

import pytest

from raystream import JobStatus
from tests.ray.access_logs import (
    Expected,
    PacedParse,
    add_count,
    assert_counted_exactly_once,
    assert_published_exactly_once,
    lines_of,
    records,
)
from tests.ray.conftest import PATIENCE_S, completed, handle_of, wait_until


@pytest.fixture
def counting(environment, tmp_path):
    """Start the main job over one log of many splits, from a snapshot if there is one."""
    expected = Expected()
    for number in range(4):
        expected.append_to(tmp_path / f"{number}.log", lines=15_000, seed=number)

    def start(parallelism: int, path: str | None = None):
        options = {} if path is None else {"execution_state_recovery_path": path}
        env = environment(parallelism, **options)
        add_count(env, lines_of(tmp_path / "*.log"), tmp_path / "out", parse=PacedParse(pause_s=0.00005))
        client = env.submit("count, stop and go on")
        return client, handle_of(client.job_id)

    start.expected = expected
    return start


def count_for_a_while(handle) -> None:
    """Wait until some output is published, which is long before the log is read."""
    published = completed(handle.view()) + 2
    wait_until(handle, lambda view: completed(view) >= published)


def test_counts_go_on_from_savepoints_at_2_then_4_then_1(counting, tmp_path):
    client, handle = counting(2)
    count_for_a_while(handle)
    first = client.stop(str(tmp_path / "savepoints"))
    moved = (tmp_path / "savepoints").rename(tmp_path / "moved")
    early = len(records(tmp_path / "out"))

    client, handle = counting(4, str(moved / first.rsplit("/", 1)[-1]))
    count_for_a_while(handle)
    second = client.stop(str(tmp_path / "savepoints"))
    later = len(records(tmp_path / "out"))

    client, _ = counting(1, second)
    result = client.wait(PATIENCE_S)

    assert 0 < early < later < sum(counting.expected.hits.values()), "each run has counted a part"
    assert result.status is JobStatus.FINISHED
    assert_counted_exactly_once(tmp_path / "out", counting.expected)


def test_counts_go_on_from_the_checkpoint_that_a_cancelled_job_retains(counting, tmp_path):
    client, handle = counting(2)
    count_for_a_while(handle)
    client.cancel()
    retained = [one.path for one in client.checkpoints() if one.status == "completed"][-1]

    client, _ = counting(4, retained)
    result = client.wait(PATIENCE_S)

    assert result.status is JobStatus.FINISHED
    # What the cancelled job had pre-committed for a checkpoint that never completed is its own, and stays.
    assert_published_exactly_once(tmp_path / "out", counting.expected)
