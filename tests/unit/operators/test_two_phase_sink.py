"""A sink in a few methods: transactions end at barriers, and are committed in order, once."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from raystream import GraphError, StateError, StateRestoreError, TwoPhaseCommitSink, UserCodeError
from raystream.operators.sink_operator import COMMITTABLES_STATE, SinkOperator
from raystream.operators.transaction_codec import FORMAT_VERSION, TransactionCodec
from raystream.records.batch import RowBatch
from tests.unit.operators.running import Run

GOLDEN = Path(__file__).resolve().parents[2] / "golden"


class Ledger(TwoPhaseCommitSink):
    """Writes down what it is told; a transaction is a list of its name and its records."""

    def __init__(self, transaction_type=None):
        self.transaction_type = transaction_type
        self.calls = []
        self.visible = []
        self.broken = {}
        self.found = {}

    def note(self, call, what):
        self.calls.append((call, what))
        if call in self.broken:
            raise OSError(self.broken.pop(call))

    def open(self, context):
        self.note("open", context.subtask)

    def begin(self, name):
        self.note("begin", name)
        return [name]

    def write(self, transaction, values):
        self.note("write", values)
        transaction += values

    def pre_commit(self, transaction):
        self.note("pre-commit", transaction[1:])

    def commit(self, transaction):
        self.note("commit", transaction[1:])
        if transaction not in self.visible:
            self.visible.append(transaction)

    def abort(self, transaction):
        self.note("abort", transaction[1:])

    def unfinished(self):
        return self.found

    def keep(self, transaction):
        self.note("keep", transaction[1:])

    def close(self):
        self.note("close", None)


def opened(sink, restored=()):
    operator = SinkOperator(sink)
    running = Run(operator, restored={COMMITTABLES_STATE: list(restored)} if restored else {})
    operator.open()
    running.background.run_all()
    operator.start()
    return operator, running


def snapshot(operator, checkpoint_id, *, savepoint=False):
    (state,) = operator.snapshot(checkpoint_id, savepoint=savepoint)
    operator.sync()
    return state.elements


def records(sink):
    return [value for transaction in sink.visible for value in transaction[1:]]


def test_worked_example_of_the_specification():
    sink = Ledger()
    operator, running = opened(sink)
    for checkpoint_id, value in enumerate((42, 43, 44)):
        operator.process(RowBatch([value]))
        snapshot(operator, checkpoint_id)
    assert records(sink) == []

    operator.checkpoint_complete(2)
    operator.checkpoint_complete(1)
    running.background.run_all()

    assert records(sink) == [42, 43, 44]
    assert [call for call in sink.calls if call[0] == "commit"] == [
        ("commit", [42]), ("commit", [43]), ("commit", [44]),
    ]  # fmt: skip


def test_transaction_begins_with_its_first_record_and_ends_at_the_barrier():
    sink = Ledger()
    operator, _ = opened(sink)
    assert snapshot(operator, 1) == []
    operator.process(RowBatch([1]))
    operator.process(RowBatch([2, 3]))
    assert len(snapshot(operator, 2)) == 1
    operator.process(RowBatch([4]))

    job = "ab" * 8
    assert sink.calls == [
        ("open", 3),
        ("begin", f"txn-the-uid-{job}-3-2-0"),
        ("write", [1]),
        ("write", [2, 3]),
        ("pre-commit", [1, 2, 3]),
        ("begin", f"txn-the-uid-{job}-3-2-1"),
        ("write", [4]),
    ]


def test_restored_transactions_are_committed_before_dead_ones_are_aborted_and_new_ones_begun():
    before = Ledger()
    operator, _ = opened(before)
    operator.process(RowBatch([1]))
    state = snapshot(operator, 1)

    sink = Ledger()
    job = "ab" * 8
    sink.found = {
        f"txn-the-uid-{job}-3-1-7": ["dead", "left behind"],
        f"txn-the-uid-{job}-7-1-0": ["dead", "of a subtask that is no more"],
        f"txn-the-uid-{job}-1-1-0": ["dead", "another subtask's to abort"],
        f"txn-the-uid-{job}-3-2-0": ["alive", "of this attempt"],
        f"txn-the-uid-{'cd' * 8}-3-1-0": ["alive", "another job's"],
        f"txn-other-{job}-3-1-0": ["alive", "another sink's"],
        "something": ["alive", "a stranger's"],
    }
    operator, _ = opened(sink, state)
    operator.process(RowBatch([2]))

    assert [call for call in sink.calls if call[0] != "open"] == [
        ("commit", [1]),
        ("abort", ["left behind"]),
        ("abort", ["of a subtask that is no more"]),
        ("begin", f"txn-the-uid-{job}-3-2-0"),
        ("write", [2]),
    ]


def test_commit_that_fails_keeps_no_other_one_back_and_its_error_is_the_first():
    sink = Ledger()
    operator, running = opened(sink)
    for checkpoint_id in (1, 2, 3):
        operator.process(RowBatch([checkpoint_id]))
        snapshot(operator, checkpoint_id)
    sink.broken = {"commit": "the first"}

    operator.checkpoint_complete(3)
    running.background.run_all()

    assert records(sink) == [2, 3]
    (failure,) = running.failures
    assert isinstance(failure, UserCodeError)
    assert failure.context["cause"] == "OSError: the first"


def test_pre_commit_that_failed_is_called_again_for_the_next_checkpoint():
    sink = Ledger()
    operator, running = opened(sink)
    operator.process(RowBatch([1]))
    operator.snapshot(1)
    sink.broken = {"pre-commit": "no answer"}
    with pytest.raises(UserCodeError, match="no answer"):
        operator.sync()
    operator.process(RowBatch([2]))
    assert len(snapshot(operator, 2)) == 2

    operator.checkpoint_complete(2)
    running.background.run_all()

    assert [call for call in sink.calls if call[0] == "pre-commit"] == [
        ("pre-commit", [1]), ("pre-commit", [1]), ("pre-commit", [2]),
    ]  # fmt: skip
    assert records(sink) == [1, 2]


def test_what_a_savepoint_refers_to_is_kept_behind_its_pre_commit():
    sink = Ledger()
    operator, _ = opened(sink)
    operator.process(RowBatch([1]))
    snapshot(operator, 1, savepoint=True)

    assert [call for call, _ in sink.calls][-2:] == ["pre-commit", "keep"]


def test_attempt_that_is_given_up_aborts_what_it_was_writing_and_nothing_else():
    sink = Ledger()
    operator, _ = opened(sink)
    operator.process(RowBatch([1]))
    snapshot(operator, 1)
    operator.process(RowBatch([2]))

    operator.abort()
    operator.abort()
    operator.close()

    assert sink.calls[-2:] == [("abort", [2]), ("close", None)]


def test_what_a_slot_that_was_taken_for_dead_pre_commits_late_is_aborted_in_the_end(caplog):
    sink = Ledger()
    operator, _ = opened(sink)
    sink.found = {f"txn-the-uid-{'ab' * 8}-3-1-9": ["dead", "late"]}
    sink.broken = {"abort": "no answer"}
    operator.close()

    assert sink.calls == [("open", 3), ("abort", ["late"]), ("close", None)]
    assert "transactions of dead attempts are left" in caplog.text


def test_sink_that_finds_unfinished_transactions_must_keep_those_of_savepoints():
    with pytest.raises(GraphError, match="keeps none for savepoints"):

        class Forgetful(TwoPhaseCommitSink):
            def unfinished(self):
                return {}


# ---- transactions in a snapshot ---------------------------------------------


@dataclass
class Batch:
    name: str
    rows: list[int]


class Typed(Ledger):
    def begin(self, name):
        return Batch(name, [])

    def write(self, transaction, values):
        transaction.rows += values

    def pre_commit(self, transaction):
        pass

    def commit(self, transaction):
        self.visible.append(transaction)


def pre_committed(sink):
    operator, _ = opened(sink)
    operator.process(RowBatch([1, 2]))
    return snapshot(operator, 1)


@pytest.mark.parametrize("declared", [None, Batch])
def test_transaction_comes_back_as_it_was_at_the_barrier(declared):
    state = pre_committed(Typed(declared))

    again = Typed(declared)
    opened(again, state)

    assert [(type(batch), batch.rows) for batch in again.visible] == [(Batch, [1, 2])]


def test_a_transaction_is_stored_as_it_was():
    stored = (GOLDEN / f"transaction-committable-{FORMAT_VERSION}.bin").read_bytes()
    codec = TransactionCodec(Batch)

    assert codec.decode(stored) == Batch("a name", [1, 2])
    assert codec.encode(Batch("a name", [1, 2])) == stored


def test_transaction_gains_a_field_with_a_default():
    state = pre_committed(Typed(Batch))

    @dataclass
    class Later:
        rows: list[int]
        retries: int = 3

    Later.__name__ = "Batch"
    again = Typed(Later)
    opened(again, state)

    assert again.visible == [Later([1, 2], 3)]


def test_transaction_of_another_type_is_not_committed():
    state = pre_committed(Typed(Batch))

    again = Typed(str)
    _, running = opened(again, state)

    (failure,) = running.failures
    assert isinstance(failure, StateRestoreError)
    assert (failure.context["declared"], again.visible) == ("str", [])


def test_transaction_that_is_not_what_the_sink_declares_fails_its_checkpoint():
    operator, _ = opened(Typed(str))
    operator.process(RowBatch([1]))

    with pytest.raises(StateError, match="declared"):
        operator.snapshot(1)


@pytest.mark.parametrize("damage", [b"", b"\x01", b"\x01\x00", b"\x07abc"])
def test_committable_that_is_none_is_refused(damage):
    _, running = opened(Typed(str), [damage])

    assert [type(failure) for failure in running.failures] == [StateRestoreError]
