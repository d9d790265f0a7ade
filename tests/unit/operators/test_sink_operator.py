"""The sink operator pre-commits at barriers, and commits, in a thread, what a checkpoint made due."""

import pytest

from raystream.errors import StorageError, UserCodeError
from raystream.operators.sink_operator import SinkOperator
from raystream.records.batch import RowBatch
from tests.unit.operators.running import Run


class ListSink:
    """What was written since the last barrier becomes one committable; the visible part is a list."""

    def __init__(self, *, transactional=True):
        self.visible = []
        self.commits = []
        self.errors = []
        self.log = []
        self.transactional = transactional

    def open_committer(self, context):
        return self if self.transactional else None

    def open_writer(self, context):
        assert (context.job_id, context.uid, context.subtask, context.attempt) == ("ab" * 16, "the-uid", 3, 2)
        self.log.append("open")
        self.written = []
        return self

    def start(self):
        self.log.append("start")

    def write(self, batch):
        if batch.values == ["bad"]:
            raise OSError("disk is full")
        self.written += batch.values

    def prepare_commit(self, checkpoint_id):
        if self.written == ["worse"]:
            raise OSError("disk is full")
        written, self.written = self.written, []
        return [str(value).encode() for value in written] if self.transactional else []

    def commit(self, committables):
        self.commits.append(tuple(committables))
        if self.errors:
            raise self.errors.pop()
        self.visible += [c for c in committables if c not in self.visible]

    def sync(self):
        if self.errors:
            raise self.errors.pop()
        self.log.append("sync")

    def keep(self, committables):
        if self.errors:
            raise self.errors.pop()
        self.log.append(("keep", list(committables)))

    def abort(self):
        self.log.append("abort")

    def close(self):
        self.log.append("close")


def opened(restored=(), **arguments):
    sink = ListSink(**arguments)
    operator = SinkOperator(sink)
    running = Run(operator, restored={"_committables": list(restored)} if restored else {})
    operator.open()
    return operator, sink, running


def elements(states):
    return [element for state in states for element in state.elements]


def test_worked_example_of_the_specification():
    operator, sink, running = opened()
    for checkpoint_id, value in enumerate([42, 43, 44]):
        operator.process(RowBatch([value]))
        operator.snapshot(checkpoint_id)

    operator.checkpoint_complete(2)
    operator.checkpoint_complete(1)
    running.background.run_all()

    assert sink.visible == [b"42", b"43", b"44"]
    assert sink.commits == [(b"42", b"43", b"44")]
    assert operator.records_written == 3


def test_nothing_is_visible_before_the_checkpoint_is_complete():
    operator, sink, running = opened()
    operator.process(RowBatch([1]))

    assert elements(operator.snapshot(1)) == [b"1"]
    assert not running.background.waiting
    assert operator.committed

    operator.checkpoint_complete(1)
    assert not operator.committed
    running.background.run_all()
    assert operator.committed
    assert sink.visible == [b"1"]


def test_what_is_being_committed_is_still_state():
    operator, _, running = opened()
    operator.process(RowBatch([1]))
    operator.snapshot(1)
    operator.checkpoint_complete(1)
    operator.process(RowBatch([2]))

    assert elements(operator.snapshot(2)) == [b"1", b"2"]

    running.background.run_all()
    assert elements(operator.snapshot(3)) == [b"2"]


def test_commits_run_one_at_a_time_and_in_order():
    operator, sink, running = opened()
    for checkpoint_id in (1, 2, 3):
        operator.process(RowBatch([checkpoint_id]))
        operator.snapshot(checkpoint_id)
        operator.checkpoint_complete(checkpoint_id)
        assert len(running.background.waiting) == 1

    running.background.run_all()

    assert sink.commits == [(b"1",), (b"2", b"3")]


def test_restored_committables_are_committed_before_the_sink_counts_as_open():
    operator, sink, running = opened(restored=[b"old", b"older"])
    assert not operator.opened

    running.background.run_all()

    assert operator.opened
    assert sink.visible == [b"old", b"older"]
    assert sink.log == ["open"]
    operator.start()
    assert sink.log == ["open", "start"]


def test_new_sink_is_open_at_once():
    assert opened()[0].opened


def test_failed_commit_fails_the_attempt_and_stays_state():
    operator, sink, running = opened()
    operator.process(RowBatch([1]))
    operator.snapshot(1)
    sink.errors.append(StorageError("store does not answer"))
    operator.checkpoint_complete(1)
    running.background.run_all()

    assert [type(error) for error in running.failures] == [StorageError]
    assert not operator.committed
    assert elements(operator.snapshot(2)) == [b"1"]


def test_commit_after_a_restore_commits_what_had_failed():
    before, sink, running = opened()
    before.process(RowBatch([1, 2]))
    state = elements(before.snapshot(1))
    sink.errors.append(StorageError("store does not answer"))
    before.checkpoint_complete(1)
    running.background.run_all()

    after, sink, running = opened(restored=state)
    running.background.run_all()

    assert sink.visible == [b"1", b"2"]
    assert after.opened


def test_commit_error_that_is_not_ours_names_the_operator():
    _, sink, running = opened(restored=[b"1"])
    sink.errors.append(PermissionError("read-only"))
    running.background.run_all()

    (error,) = running.failures
    assert isinstance(error, UserCodeError)
    assert error.message == "sink failed to commit"
    assert error.context["operator"] == "the operator"
    assert "read-only" in error.context["cause"]


def test_error_of_a_writer_names_the_operator():
    operator, _, _ = opened()

    with pytest.raises(UserCodeError, match="sink failed to write") as raised:
        operator.process(RowBatch(["bad"]))

    assert raised.value.context["operator"] == "the operator"


def test_error_of_a_pre_commit_names_the_operator():
    operator, _, _ = opened()
    operator.process(RowBatch(["worse"]))

    with pytest.raises(UserCodeError, match="sink failed to pre-commit") as raised:
        operator.snapshot(1)

    assert raised.value.context["operator"] == "the operator"


def test_sink_that_does_not_open_names_the_operator():
    class Broken:
        def open_committer(self, context):
            raise OSError("no such host")

    operator = SinkOperator(Broken())
    Run(operator)

    with pytest.raises(UserCodeError, match="sink failed to open"):
        operator.open()


def test_without_checkpoints_everything_is_committed_at_the_end():
    operator, sink, running = opened()
    operator.process(RowBatch([1, 2]))

    operator.commit_at_end()
    running.background.run_all()

    assert sink.visible == [b"1", b"2"]
    assert operator.committed


def test_end_without_checkpoints_also_commits_what_savepoints_prepared():
    operator, sink, running = opened()
    operator.process(RowBatch([1]))
    operator.snapshot(5)
    operator.process(RowBatch([2]))

    operator.commit_at_end()
    running.background.run_all()

    assert sink.visible == [b"1", b"2"]


def test_aborted_checkpoint_leaves_its_committables_to_the_next_one():
    operator, sink, running = opened()
    operator.process(RowBatch([1]))
    operator.snapshot(1)
    operator.checkpoint_aborted(1)
    operator.process(RowBatch([2]))
    operator.snapshot(2)
    operator.checkpoint_complete(2)
    running.background.run_all()

    assert sink.visible == [b"1", b"2"]


def test_savepoint_keeps_everything_that_it_refers_to():
    operator, sink, _ = opened()
    operator.process(RowBatch([1]))
    operator.snapshot(1)
    operator.process(RowBatch([2]))
    operator.snapshot(2, savepoint=True)

    assert sink.log == ["open", ("keep", [b"1", b"2"])]


def test_savepoint_without_committables_keeps_nothing():
    operator, sink, _ = opened()
    operator.snapshot(1, savepoint=True)

    assert sink.log == ["open"]


def test_savepoint_that_cannot_keep_its_output_names_the_operator():
    operator, sink, _ = opened()
    operator.process(RowBatch([1]))
    sink.errors.append(PermissionError("read-only"))

    with pytest.raises(UserCodeError, match="sink failed to keep what a savepoint refers to"):
        operator.snapshot(1, savepoint=True)


def test_sink_without_a_committer_has_no_state():
    operator, _, running = opened(transactional=False)
    operator.process(RowBatch([1]))

    assert operator.snapshot(1) == []
    operator.checkpoint_complete(1)
    assert not running.background.waiting
    assert operator.committed


def test_abort_and_close_reach_the_writer():
    operator, sink, _ = opened()

    operator.abort()
    operator.close()

    assert sink.log == ["open", "abort", "close"]


def test_output_is_synced_in_a_thread_and_not_by_the_snapshot():
    operator, sink, _ = opened()
    operator.process(RowBatch([1]))
    operator.snapshot(1)
    assert "sync" not in sink.log

    operator.sync()
    assert sink.log == ["open", "sync"]


def test_output_that_cannot_be_synced_names_the_operator():
    operator, sink, _ = opened()
    sink.errors.append(OSError("disk is full"))

    with pytest.raises(UserCodeError, match="sink failed to make its output durable"):
        operator.sync()


def test_end_without_checkpoints_syncs_before_it_commits():
    operator, sink, running = opened()
    operator.process(RowBatch([1]))
    operator.commit_at_end()
    sink.errors.append(StorageError("disk is full"))
    running.background.run_all()

    assert sink.commits == []
    assert [error.message for error in running.failures] == ["disk is full"]


def test_end_without_checkpoints_syncs_also_behind_a_commit_that_is_under_way():
    operator, sink, running = opened(restored=[b"old"])
    operator.process(RowBatch([1]))
    operator.commit_at_end()
    running.background.run_all()

    assert sink.visible == [b"old", b"1"]
    assert sink.log[-1] == "sync"
