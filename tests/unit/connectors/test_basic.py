"""Collections, the console, the client and nothing at all."""

import threading

import pytest

from raystream.connectors.basic import CollectionSource, CollectReceiver, CollectSink, DiscardSink, PrintSink
from raystream.errors import GraphError
from raystream.operators.sink import WriterContext
from raystream.operators.source import EnumeratorContext
from raystream.records.batch import RowBatch
from raystream.testing.contracts import SinkContract, SourceContract
from raystream.testing.source_run import ReaderRun


def context_of(**changes):
    fields = {
        "job_id": "0" * 32, "uid": "sink", "subtask": 0, "parallelism": 1, "attempt": 1,
        "tell_client": None, "deliver": None,
    }  # fmt: skip
    return WriterContext(**{**fields, **changes})


class TestCollectionContract(SourceContract):
    def source(self):
        return CollectionSource({"n": i} for i in range(200))

    def expected(self):
        return [{"n": i} for i in range(200)]


class TestEmptyCollectionContract(SourceContract):
    def source(self):
        return CollectionSource([])

    def expected(self):
        return []


class TestCollectSinkContract(SinkContract):
    def sink(self):
        return CollectSink()

    def visible(self):
        receiver = CollectReceiver()
        return [value for payload in self.delivered for value in receiver.receive(payload)]


def splits_of(source, parallelism):
    context = EnumeratorContext(parallelism=parallelism, max_parallelism=128, restored=False)
    enumerator = source.enumerator(context, None)
    splits = []
    while found := enumerator.next_splits(0):
        splits += found
    return splits


def test_one_subtask_keeps_the_order_of_the_collection_also_after_a_restore():
    source = CollectionSource(range(100))
    splits = splits_of(source, 1)
    first = ReaderRun(source)
    first.reader.add_splits(splits[:2])
    records = first.reader.poll(7, 1 << 20).values
    second = ReaderRun(source)
    second.reader.add_splits(first.reader.snapshot() + splits[2:])

    assert records + second.read_all() == list(range(100))


def test_a_small_collection_is_spread_over_subtasks():
    assert len(splits_of(CollectionSource(range(10)), 2)) == 5


def test_a_range_beyond_a_collection_that_became_shorter_is_clipped():
    splits = splits_of(CollectionSource(range(100)), 1)
    run = ReaderRun(CollectionSource(range(30)))
    run.reader.add_splits(splits)

    assert run.read_all() == list(range(30))


def test_large_items_make_small_batches():
    source = CollectionSource([[bytes(1000)] * 10] * 100)
    run = ReaderRun(source)
    run.reader.add_splits(splits_of(source, 1))

    assert len(run.reader.poll(1024, 50_000)) == 4


def test_printed_records_carry_the_subtask():
    told = []
    writer = PrintSink().open_writer(context_of(subtask=3, tell_client=told.append))
    writer.start()
    writer.write(RowBatch([("a", 1), "text", None]))

    assert told == [["3> ('a', 1)", "3> text", "3> None"]]
    assert writer.prepare_commit(1) == []
    assert PrintSink().open_committer(context_of()) is None


def test_discarded_records_leave_nothing():
    writer = DiscardSink().open_writer(context_of())
    writer.start()
    writer.write(RowBatch([1, 2]))

    assert writer.prepare_commit(1) == []
    assert DiscardSink().open_committer(context_of()) is None
    writer.abort()
    writer.close()


def test_subtasks_and_attempts_never_share_an_id():
    receiver = CollectReceiver()
    received = []
    for subtask in range(2):
        for attempt in (1, 2):
            writer = CollectSink().open_writer(context_of(subtask=subtask, attempt=attempt))
            for _ in range(2):
                writer.write(RowBatch(["x"]))
                received += receiver.receive(writer.prepare_commit(1)[0])

    assert len(received) == 8


def test_a_record_that_cannot_be_sent_is_an_error():
    writer = CollectSink().open_writer(context_of())
    writer.write(RowBatch([threading.Lock()]))

    with pytest.raises(GraphError, match="cannot be sent to the client"):
        writer.prepare_commit(1)
