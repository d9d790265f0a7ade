"""The local runner runs whole jobs in this process: the same coordinator, slots and operators as on Ray."""

import logging
import threading
from dataclasses import replace

import pytest

from raystream import (
    CheckpointError,
    JobFailedError,
    JobNotFoundError,
    JobStatus,
    KeyedProcessFunction,
    StateRestoreError,
    StreamEnvironment,
    ValueStateDescriptor,
)
from raystream.api.client import JobClient
from raystream.clock import SystemClock
from raystream.connectors.basic import DiscardSink
from raystream.connectors.datagen import DatagenSource
from raystream.connectors.files import FileSink
from raystream.errors import ProtocolError
from raystream.ids import Attempt, JobId
from raystream.runtime.coordinator_view import JobView
from raystream.runtime.local_cluster import LocalJob, LocalRunner
from raystream.runtime.local_cluster_board import OUTPUT_BYTES_MAX, LocalBoard
from raystream.testing import Barrier, Crash, TestSource
from tests.held_source import HeldSource
from tests.published import counts_by_key, one_to_n

KEYS = 7


class Count(KeyedProcessFunction):
    def open(self, ctx):
        self.hits = ctx.get_state(ValueStateDescriptor("hits", int, default=0))

    def process_element(self, value, ctx):
        hits = self.hits.value() + 1
        self.hits.update(hits)
        yield ctx.current_key, hits


def environment(tmp_path=None, *, parallelism=2, **options):
    if tmp_path is not None:
        options.setdefault("execution_checkpointing_dir", str(tmp_path / "checkpoints"))
        options.setdefault("execution_checkpointing_savepoint_dir", str(tmp_path / "savepoints"))
        options.setdefault("execution_checkpointing_interval", "20ms")
        options.setdefault("execution_checkpointing_min_pause", "0ms")
    return StreamEnvironment(runner="local", parallelism=parallelism, **options)


def count_hits(env, source, out):
    counted = (
        env.from_source(source, name="source", uid="source")
        .key_by(lambda value: value % KEYS)
        .process(Count(), name="count", uid="count")
    )
    counted.sink_to(FileSink.json_lines(str(out)), name="out", uid="out")


def expected(records):
    return one_to_n(value % KEYS for value in records)


@pytest.mark.parametrize("parallelism", [1, 3])
def test_bounded_job_finishes_with_every_record_counted(tmp_path, parallelism):
    env = environment(tmp_path, parallelism=parallelism)
    count_hits(env, DatagenSource(lambda index: index, count=5_000), tmp_path / "out")
    result = env.execute("count")

    assert result.status is JobStatus.FINISHED
    assert result.records_in == 5_000
    assert counts_by_key(tmp_path / "out") == expected(range(5_000))


def test_job_without_checkpointing_finishes_too(tmp_path):
    env = environment()
    count_hits(env, DatagenSource(lambda index: index, count=1_000), tmp_path / "out")
    env.execute("count")

    assert counts_by_key(tmp_path / "out") == expected(range(1_000))


def test_crash_is_followed_by_a_restart_from_the_last_checkpoint_and_output_is_exact(tmp_path):
    script = [*range(100), Barrier(), *range(100), Crash(), *range(50)]
    other = [*range(300), Barrier(), *range(70)]
    source = TestSource(script, other)
    env = environment(tmp_path, restart_strategy_type="fixed-delay", restart_strategy_fixed_delay_delay="1ms")
    count_hits(env, source, tmp_path / "out")
    result = env.execute("count")

    assert result.restarts == 1
    assert counts_by_key(tmp_path / "out") == expected(source.records)


def test_user_error_fails_the_job_with_operator_and_record():
    env = environment(parallelism=1)
    env.from_collection([1, 0], uid="in").map(lambda value: 1 // value, name="divide", uid="m").print()

    with pytest.raises(JobFailedError, match="ZeroDivisionError") as caught:
        env.execute("divide")
    assert "divide" in str(caught.value.__cause__)


@pytest.mark.parametrize("parallelism", [1, 4])
def test_stopped_job_goes_on_from_its_savepoint_at_another_parallelism(tmp_path, go, parallelism):
    source = HeldSource(DatagenSource(lambda index: index, count=4_000), go, records=1)
    env = environment(tmp_path)
    count_hits(env, source, tmp_path / "out")
    client = env.submit("count")
    client.wait_until(frozenset({JobStatus.RUNNING}), 30, lambda uid, payload: None)
    path = client.stop()
    assert client.wait(30).status is JobStatus.FINISHED
    assert client.checkpoints()[-1].path == path
    before = client.wait(30).records_in
    assert before < 4_000
    go.touch()

    env = environment(tmp_path, parallelism=parallelism, execution_state_recovery_path=path)
    count_hits(env, source, tmp_path / "out")
    assert env.execute("count").status is JobStatus.FINISHED
    assert counts_by_key(tmp_path / "out") == expected(range(4_000))


def test_job_goes_on_under_another_max_parallelism_and_says_how_many_entries_moved(tmp_path, go, caplog):
    source = HeldSource(DatagenSource(lambda index: index, count=4_000), go, records=1)
    env = environment(tmp_path, pipeline_max_parallelism=128)
    count_hits(env, source, tmp_path / "out")
    client = env.submit("count")
    LocalRunner().attach(client.job_id)._board.wait_until(lambda view: view.records_in >= KEYS, 30)
    path = client.stop()
    stopped = client.wait(30)
    go.touch()

    env = environment(
        tmp_path, parallelism=3, pipeline_max_parallelism=256, execution_state_recovery_path=path
    )
    count_hits(env, source, tmp_path / "out")
    with caplog.at_level(logging.INFO, "raystream.state"):
        result = env.execute("count")

    assert stopped.records_in < 4_000
    assert result.status is JobStatus.FINISHED
    assert counts_by_key(tmp_path / "out") == expected(range(4_000))
    moved = [record.entries for record in caplog.records if "moved to other key groups" in record.message]
    assert 0 < sum(moved) <= KEYS


def has_checkpoint(view):
    return any((r.purpose, r.status) == ("periodic", "completed") for r in view.checkpoints)


def test_path_that_is_no_snapshot_is_refused_and_no_job_is_there(tmp_path):
    env = environment(tmp_path, execution_state_recovery_path=str(tmp_path / "nowhere"))
    env.from_collection([1]).sink_to(DiscardSink())
    threads = set(threading.enumerate())

    with pytest.raises(StateRestoreError, match="snapshot does not exist") as caught:
        env.submit()

    assert set(caught.value.context) == {"path"}
    assert list(tmp_path.rglob("*")) == [tmp_path / "checkpoints"], "which was asked for"
    assert set(threading.enumerate()) <= threads


def test_snapshot_that_does_not_fit_is_refused_and_no_job_is_there(tmp_path):
    env = environment(tmp_path)
    count_hits(env, DatagenSource(lambda index: index), tmp_path / "out")
    client = env.submit()
    savepoint = client.stop()
    client.wait(30)
    jobs = set((tmp_path / "checkpoints").iterdir())

    other = environment(tmp_path, execution_state_recovery_path=savepoint)
    other.from_collection([1]).sink_to(DiscardSink())
    with pytest.raises(StateRestoreError, match="snapshot does not fit the program"):
        other.submit()

    assert set((tmp_path / "checkpoints").iterdir()) == jobs


def test_running_job_takes_savepoints_and_is_cancelled(tmp_path):
    env = environment(tmp_path)
    count_hits(env, DatagenSource(lambda index: index, rate=1_000), tmp_path / "out")
    client = env.submit("count")

    path = client.savepoint()
    assert path.startswith("file://")
    with pytest.raises(TimeoutError):
        client.wait("10ms")
    LocalRunner().attach(client.job_id)._board.wait_until(has_checkpoint, 30)
    client.cancel()

    assert client.status() is JobStatus.CANCELED
    assert client.wait(30).status is JobStatus.CANCELED
    assert "savepoint" in [record.purpose for record in client.checkpoints()]
    assert list((tmp_path / "checkpoints").glob("*/chk-*")), "checkpoints of a cancelled job are kept"


def test_running_job_is_rescaled_up_and_down_and_its_output_is_exact(tmp_path):
    env = environment(tmp_path)
    count_hits(env, DatagenSource(lambda index: index, count=3_000, rate=2_000), tmp_path / "out")
    client = env.submit("count")

    for parallelism in (4, 1):
        assert client.rescale(parallelism) >= 0
        assert client._handle.view().parallelism == parallelism
    result = client.wait(60)

    assert (result.status, result.restarts) == (JobStatus.FINISHED, 0)
    assert counts_by_key(tmp_path / "out") == expected(range(3_000))


def test_job_without_a_latest_snapshot_begins_anew_after_a_failure_whatever_it_has_saved_meanwhile(tmp_path):
    fails = tmp_path / "fails"

    def fail_once(value):
        if fails.exists():
            fails.unlink()
            raise RuntimeError("once")
        return value

    env = environment(
        tmp_path,
        parallelism=1,
        execution_state_recovery_path="latest",
        execution_checkpointing_interval="10min",
        restart_strategy_type="fixed-delay",
        restart_strategy_fixed_delay_delay="1ms",
    )
    numbers = env.from_source(DatagenSource(lambda index: index, rate=1_000), uid="numbers")
    numbers.map(fail_once, uid="map").sink_to(DiscardSink(), uid="sink")
    client = env.submit("numbers")
    board = LocalRunner().attach(client.job_id)._board
    board.wait_until(lambda view: view.status is JobStatus.RUNNING, 30)
    client.savepoint()
    fails.touch()

    board.wait_until(lambda view: view.status.terminal or (view.restarts == 1 and view.records_in > 0), 30)
    client.cancel()

    assert client.wait(30).status is JobStatus.CANCELED


def test_failed_savepoint_is_raised_and_the_job_goes_on(tmp_path):
    (tmp_path / "file").write_text("not a directory")
    env = environment(tmp_path)
    count_hits(env, DatagenSource(lambda index: index, rate=1_000), tmp_path / "out")
    client = env.submit("count")

    with pytest.raises(CheckpointError, match="savepoint was aborted"):
        client.savepoint(str(tmp_path / "file"))
    assert client.status() is JobStatus.RUNNING
    client.cancel()


def test_job_can_be_attached_to_by_its_id_and_others_are_not_known():
    env = environment(parallelism=1)
    env.from_collection(range(10), uid="in").print()
    client = env.submit("print")
    attached = JobClient.attach(client.job_id, runner="local")

    assert attached.wait(30).status is JobStatus.FINISHED
    with pytest.raises(JobNotFoundError):
        JobClient.attach("0" * 32, runner="local")


def test_job_that_waits_for_its_source_does_not_spin(tmp_path, monkeypatch):
    rounds = []
    do_round = LocalJob._round
    monkeypatch.setattr(LocalJob, "_round", lambda job: (rounds.append(job), do_round(job)))
    env = environment(tmp_path, execution_checkpointing_interval="10s")
    count_hits(env, DatagenSource(lambda index: index, count=5, rate=100), tmp_path / "out")
    env.execute("slow")

    assert len(rounds) < 1_000, "a loop that polls makes tens of thousands"


# ---- the board --------------------------------------------------------------------


VIEW = JobView(
    job_id=JobId("0" * 32),
    name="job",
    status=JobStatus.RUNNING,
    parallelism=1,
    attempt=Attempt(1),
    restarts=0,
    records_in=0,
    records_out=0,
    duration_ms=0,
)
FINISHED = replace(VIEW, status=JobStatus.FINISHED)


def test_output_comes_before_the_view_that_ends_the_wait_and_in_order():
    board = LocalBoard(SystemClock(), VIEW)
    board.add_output("a", ["1"])
    board.add_output("b", b"2")
    board.publish(FINISHED)
    taken = []

    view = board.wait_until(
        lambda view: view.status.terminal, None, lambda uid, payload: taken.append((uid, payload))
    )

    assert view == FINISHED
    assert taken == [("a", ["1"]), ("b", b"2")]


def test_wait_without_a_listener_leaves_the_output_to_others():
    board = LocalBoard(SystemClock(), FINISHED)
    board.add_output("a", ["1"])
    board.wait_until(lambda view: True, None)
    taken = []
    board.wait_until(lambda view: True, None, lambda uid, payload: taken.append(payload))

    assert taken == [["1"]]


def test_output_that_nobody_takes_is_bounded_and_the_oldest_is_dropped(caplog):
    board = LocalBoard(SystemClock(), FINISHED)
    for number in range(4):
        board.add_output("a", bytes([number]) * (OUTPUT_BYTES_MAX // 2))
    taken = []
    board.wait_until(lambda view: True, None, lambda uid, payload: taken.append(payload[0]))

    assert taken == [2, 3]
    assert "dropped" in caplog.text


def test_job_waits_for_a_client_that_takes_output_slowly():
    board = LocalBoard(SystemClock(), VIEW)
    big = bytes(OUTPUT_BYTES_MAX)
    added, taken = threading.Event(), []

    def produce():
        for _ in range(3):
            board.add_output("a", big)
        added.set()
        board.publish(FINISHED)

    def take(uid, payload):
        if not taken:
            threading.Thread(target=produce, daemon=True).start()
            assert not added.wait(0.05), "the producer is held back"
        taken.append(len(payload))

    board.add_output("a", b"first")
    board.wait_until(lambda view: view.status.terminal, 10, take)

    assert taken == [5, *[OUTPUT_BYTES_MAX] * 3]


def test_job_that_breaks_down_is_shown_as_failed():
    board = LocalBoard(SystemClock(), VIEW)
    board.break_down(ProtocolError("bug"))

    assert board.view.status is JobStatus.FAILED
    assert board.view.error.message == "bug"
