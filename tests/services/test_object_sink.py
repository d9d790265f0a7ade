"""Objects of the file sink appear whole, once, and only when their checkpoint is complete."""

import asyncio

import pytest

from raystream.connectors import object_sink
from raystream.connectors.file_place import marker_name
from raystream.connectors.files import FileSink
from raystream.errors import ConfigError, OutputLostError, StorageError
from raystream.records.batch import RowBatch
from raystream.storage import s3_uploads
from raystream.storage.s3_requests import Requests
from raystream.storage.s3_uploads import Uploads
from raystream.testing.contracts import SinkContract
from tests.unit.connectors.conftest import open_writer  # noqa: F401 - a fixture
from tests.unit.connectors.sinks import JOB_ID, commit, context_of, visible_files

PART = "out/part-sink-0123456789abcdef"
"""How the names of objects begin, before subtask, attempt and counter."""


class TestObjectSinkContract(SinkContract):
    seeds = range(5)

    @pytest.fixture(autouse=True)
    def _bucket(self, bucket):
        self.bucket = bucket

    def sink(self):
        return FileSink.lines(f"{self.bucket.url}/made/when needed")

    def visible(self):
        return self.bucket.lines()

    def record(self, number):
        return f"record {number}"


@pytest.fixture
def sink(bucket):
    return FileSink.lines(f"{bucket.url}/out")


@pytest.fixture
def before(monkeypatch):
    """What is awaited before a request is sent, by its operation."""
    send = Requests.send
    before = {}

    async def sent(requests, operation, **arguments):
        if operation in before:
            await before[operation]()
        return await send(requests, operation, **arguments)

    monkeypatch.setattr(Requests, "send", sent)
    return before


def warnings(caplog):
    return [record for record in caplog.records if record.name.startswith("raystream")]


def prepared(writer, *texts):
    """Write records and pre-commit them durably."""
    writer.write(RowBatch(list(texts)))
    committables = writer.prepare_commit(1)
    writer.sync()
    return committables


def commit_again(sink, committables, **changes):
    sink.open_committer(context_of(**changes)).commit(committables)


# ---- names and parts ----------------------------------------------------------


def test_an_object_is_named_after_operator_job_subtask_attempt_and_counter(sink, bucket, open_writer):
    writer = open_writer(sink, uid="count/hits é", subtask=3, parallelism=4, attempt=7)
    for text in ("a", "b"):
        writer.write(RowBatch([text]))
        commit(sink, writer)

    name = "out/part-count%2Fhits%20%C3%A9-0123456789abcdef-3-7-"
    assert bucket.visible() == {f"{name}0": b"a\n", f"{name}1": b"b\n"}
    assert bucket.objects().keys() - bucket.visible().keys() == {f"out/{marker_name(JOB_ID)}"}
    assert bucket.uploads() == []


def test_objects_may_be_at_the_root_of_a_bucket(bucket, open_writer):
    sink = FileSink.json_lines(bucket.url)
    commit_again(sink, prepared(open_writer(sink), {"a": 1}))

    assert bucket.visible() == {"part-sink-0123456789abcdef-0-1-0": b'{"a":1}\n'}


def test_a_job_that_starts_from_a_savepoint_of_another_collides_with_none_of_its_objects(
    sink, bucket, open_writer
):
    for job_id in ("a" * 32, "b" * 32):
        writer = open_writer(sink, job_id=job_id)
        writer.write(RowBatch([job_id[:1]]))
        commit(sink, writer)

    assert bucket.lines() == ["a", "b"]


def test_large_output_is_uploaded_in_parts_while_records_come(sink, bucket, open_writer):
    writer = open_writer(sink)
    texts = [letter * object_sink.PART_BYTES for letter in "ab"]
    for text in texts:
        writer.write(RowBatch([text]))
    writer._upload.wait()
    assert bucket.part_sizes() == [object_sink.PART_BYTES + 1] * 2, "before any checkpoint"

    commit_again(sink, prepared(writer, "the rest"))

    assert bucket.lines() == [*texts, "the rest"]


def test_an_upload_that_has_all_parts_it_may_have_is_followed_by_another(
    sink, bucket, open_writer, monkeypatch
):
    monkeypatch.setattr(object_sink, "PART_BYTES", 1)
    monkeypatch.setattr(object_sink, "PARTS_MAX", 1)
    writer = open_writer(sink)
    writer.write(RowBatch(["a"]))
    writer.write(RowBatch(["b"]))
    assert bucket.visible() == {}

    committables = prepared(writer, "c")
    commit_again(sink, committables)

    assert len(committables) == 3
    assert bucket.lines() == ["a", "b", "c"]


def test_only_few_parts_are_in_memory(sink, open_writer, before, monkeypatch):
    """The first ones are held up until a third one has tried to leave."""
    monkeypatch.setattr(object_sink, "PART_BYTES", 1)
    on_the_way, most = 0, 0

    async def count():
        nonlocal on_the_way, most
        on_the_way += 1
        most = max(most, on_the_way)
        await asyncio.sleep(0)
        on_the_way -= 1

    before["upload_part"] = count
    writer = open_writer(sink)
    for text in "abcdefgh":
        writer.write(RowBatch([text]))
        assert len(writer._upload._on_the_way) <= s3_uploads.PARTS_ON_THE_WAY_MAX
    prepared(writer, "i")

    assert most <= s3_uploads.PARTS_ON_THE_WAY_MAX


def test_the_stream_waits_for_no_part_at_a_checkpoint(sink, bucket, open_writer, before):
    """The store keeps the part waiting until the pre-commit has returned."""
    writer = open_writer(sink)
    returned = asyncio.Event()
    before["upload_part"] = returned.wait
    writer.write(RowBatch(["a"]))

    committables = writer.prepare_commit(1)

    writer._store.uploads._requests._session.loop.call_soon_threadsafe(returned.set)
    writer.sync()
    commit_again(sink, committables)
    assert bucket.lines() == ["a"]


def test_an_empty_batch_begins_nothing(sink, bucket, open_writer):
    writer = open_writer(sink)
    writer.write(RowBatch([]))

    assert writer.prepare_commit(1) == []
    assert bucket.uploads() == []


# ---- crashes ------------------------------------------------------------------


def test_what_was_uploaded_and_is_in_no_checkpoint_is_aborted_by_the_next_attempt(sink, bucket, open_writer):
    """Killed between upload and checkpoint; another record was on its way."""
    writer = open_writer(sink)
    prepared(writer, "a")
    writer.write(RowBatch(["b"]))
    assert writer._upload.upload_id
    assert bucket.uploads() == [f"{PART}-0-1-0", f"{PART}-0-1-1"]

    open_writer(sink, attempt=2)

    assert bucket.uploads() == []
    assert bucket.visible() == {}


def test_what_a_checkpoint_has_is_committed_by_the_next_attempt_before_it_aborts_the_rest(
    sink, bucket, open_writer
):
    """Killed between checkpoint and commit."""
    writer = open_writer(sink)
    committables = prepared(writer, "a")
    prepared(writer, "in no checkpoint")

    commit_again(sink, committables, attempt=2)
    open_writer(sink, attempt=2)

    assert bucket.lines() == ["a"]
    assert bucket.uploads() == []


def test_a_commit_whose_success_nobody_noted_is_repeated_without_effect(sink, bucket, open_writer, caplog):
    """Killed between commit and its note; another job may restore the same checkpoint."""
    committables = prepared(open_writer(sink), "a")
    commit_again(sink, committables)
    before = bucket.objects()

    for changes in ({}, {"attempt": 2}, {"job_id": "f" * 32}):
        commit_again(sink, committables, **changes)

    assert bucket.objects() == before
    assert warnings(caplog) == []


def test_a_commit_whose_answer_was_lost_has_succeeded(sink, bucket, open_writer, before):
    """The store completes an upload, and the connection breaks before it has said so."""
    committables = prepared(open_writer(sink), "a")
    call = Uploads.complete

    def lost(uploads, *arguments):
        call(uploads, *arguments)
        raise StorageError("could not complete upload")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Uploads, "complete", lost)
        with pytest.raises(StorageError, match="could not complete upload"):
            commit_again(sink, committables)
    commit_again(sink, committables)

    assert bucket.lines() == ["a"]


def test_commits_of_two_attempts_that_overlap_both_succeed(sink, bucket, open_writer, monkeypatch):
    """The older attempt's commit is still under way when the newer one repeats it."""
    committables = prepared(open_writer(sink), "a")
    complete = Uploads.complete

    def the_other_is_faster(uploads, *arguments):
        monkeypatch.setattr(Uploads, "complete", complete)
        commit_again(sink, committables, attempt=2)
        complete(uploads, *arguments)

    monkeypatch.setattr(Uploads, "complete", the_other_is_faster)
    commit_again(sink, committables)

    assert bucket.lines() == ["a"]


def test_start_aborts_what_dead_attempts_of_this_job_left_and_nothing_else(sink, bucket, open_writer):
    mine = [f"{PART}-0-1-0", f"{PART}-2-1-5", f"{PART}-4-2-0"]
    others = [
        f"{PART}-0-3-0",  # This attempt.
        f"{PART}-1-1-0",  # The other subtask's.
        "out/part-sink-89abcdef01234567-0-1-0",  # Another job.
        "out/part-sink2-0123456789abcdef-0-1-0",  # Another operator.
        f"{PART}-0000000000000000-0-1-0",  # An operator with such a name.
        f"{PART}-x-1-0",
        f"{PART}-0-1-0/below",
        "part-sink-0123456789abcdef-0-1-0",
        "other",
    ]
    for key in mine + others:
        bucket.client.create_multipart_upload(Bucket=bucket.name, Key=key)

    open_writer(sink, subtask=0, parallelism=2, attempt=3)

    assert bucket.uploads() == sorted(others)


def test_all_subtasks_together_abort_everything_a_larger_attempt_left(sink, bucket, open_writer):
    for subtask in range(5):
        prepared(open_writer(sink, subtask=subtask, parallelism=5), "x")
    assert len(bucket.uploads()) == 5

    for subtask in range(2):
        open_writer(sink, subtask=subtask, parallelism=2, attempt=2)

    assert bucket.uploads() == []


def test_close_aborts_what_a_stopped_process_of_an_older_attempt_began_after_the_start(
    sink, bucket, open_writer
):
    stopped = open_writer(sink)
    writer = open_writer(sink, attempt=2)
    prepared(stopped, "late")
    prepared(writer, "a")

    writer.close()

    assert bucket.uploads() == [f"{PART}-0-2-0"]


def test_close_before_the_start_leaves_what_is_not_committed_yet(sink, bucket, open_writer):
    prepared(open_writer(sink), "a")
    sink.open_writer(context_of(attempt=2)).close()

    assert bucket.uploads() == [f"{PART}-0-1-0"]


def test_abort_leaves_only_what_was_pre_committed(sink, bucket, open_writer, monkeypatch):
    monkeypatch.setattr(object_sink, "PART_BYTES", 1)
    monkeypatch.setattr(object_sink, "PARTS_MAX", 1)
    writer = open_writer(sink)
    prepared(writer, "a")
    writer.write(RowBatch(["an upload that has all its parts"]))
    monkeypatch.setattr(object_sink, "PART_BYTES", 1000)
    writer.write(RowBatch(["one that has not"]))

    writer.abort()
    writer.abort()

    assert bucket.uploads() == [f"{PART}-0-1-0"]


# ---- what is missing ----------------------------------------------------------


def test_an_upload_of_this_attempt_that_is_gone_is_lost_and_the_others_are_committed(
    sink, bucket, open_writer
):
    writer = open_writer(sink)
    committables = [raw for text in "abc" for raw in prepared(writer, text)]
    bucket.abort_uploads(f"{PART}-0-1-1")

    with pytest.raises(OutputLostError, match="pre-committed output is missing") as raised:
        commit_again(sink, committables)

    assert raised.value.context["path"] == f"{bucket.url}/{PART}-0-1-1"
    assert bucket.lines() == ["a", "c"]


def test_an_upload_that_lacks_a_part_is_lost(sink, bucket, open_writer):
    """As if the store had forgotten it."""
    writer = open_writer(sink)
    [raw] = prepared(writer, "a")
    upload = object_sink.decode_upload(raw)
    bucket.client.upload_part(
        Bucket=bucket.name, Key=f"{PART}-0-1-0", UploadId=upload.upload_id, PartNumber=1, Body=b""
    )

    with pytest.raises(OutputLostError, match="not whole"):
        commit_again(sink, [raw])
    assert bucket.visible() == {}


def test_output_that_a_reader_has_taken_away_does_not_stop_a_restore(sink, bucket, open_writer, caplog):
    writer = open_writer(sink)
    committables = [raw for text in "ab" for raw in prepared(writer, text)]
    commit_again(sink, committables)
    bucket.remove(f"{PART}-0-1-0")

    for changes in ({"attempt": 2}, {"job_id": "f" * 32}):
        caplog.clear()
        commit_again(sink, committables, **changes)
        assert [record.path for record in warnings(caplog)] == [f"{bucket.url}/{PART}-0-1-0"]
    assert bucket.lines() == ["b"]


@pytest.mark.parametrize("marked", [False, True], ids=["gone", "made anew"])
def test_output_is_not_missed_in_a_bucket_that_is_another_one(sink, bucket, open_writer, marked):
    committables = prepared(open_writer(sink), "a")
    bucket.abort_uploads()
    bucket.remove(*bucket.objects())
    if marked:
        open_writer(sink)

    with pytest.raises(StorageError, match="prefix is not known to be") as raised:
        commit_again(sink, committables, attempt=2)

    assert type(raised.value) is StorageError, "it is tried again"


def test_another_object_under_the_name_is_never_replaced(sink, bucket, open_writer):
    committables = prepared(open_writer(sink), "mine")
    bucket.client.put_object(Bucket=bucket.name, Key=f"{PART}-0-1-0", Body=b"theirs\n")

    with pytest.raises(StorageError, match="cannot be committed") as raised:
        commit_again(sink, committables)

    assert raised.value.context["reason"] == "another object has its name"
    assert bucket.lines() == ["theirs"]


def test_a_part_that_the_store_refuses_fails_every_later_snapshot(sink, bucket, open_writer, before):
    async def refuse():
        raise OSError(5, "Input/output error")

    before["upload_part"] = refuse
    writer = open_writer(sink)
    writer.write(RowBatch(["a"]))
    writer.prepare_commit(1)

    for message in ("could not store part of file", "output was not written"):
        with pytest.raises(StorageError, match=message) as raised:
            writer.sync()
        assert raised.value.context["path"] == f"{bucket.url}/{PART}-0-1-0"


def test_a_bucket_that_is_not_there_is_named(bucket):
    with pytest.raises(StorageError) as raised:
        FileSink.lines("s3://no-such-bucket/out").open_writer(context_of()).start()

    assert raised.value.context["cause"] == "the bucket does not exist"
    assert raised.value.context["path"].startswith("s3://no-such-bucket/out/")


@pytest.mark.parametrize("url", ["s3://", "gs://bucket/out"])
def test_a_url_that_names_no_bucket_is_a_configuration_error(url):
    with pytest.raises(ConfigError):
        FileSink.lines(url)


# ---- savepoints ---------------------------------------------------------------


def kept(writer, *texts):
    writer.write(RowBatch(list(texts)))
    committables = writer.prepare_commit(1)
    writer.keep(committables)
    writer.sync()
    return committables


def test_what_a_savepoint_refers_to_survives_an_attempt_that_restores_an_older_checkpoint(
    sink, bucket, open_writer
):
    writer = open_writer(sink)
    committables = kept(writer, "a")
    prepared(writer, "b")

    again = open_writer(sink, attempt=2)
    again.close()
    assert bucket.uploads() == bucket.kept() == [f"{PART}-0-1-0"]
    for _ in range(2):
        commit_again(sink, committables, job_id="f" * 32)

    assert bucket.lines() == ["a"]
    assert bucket.uploads() == bucket.kept() == []


def test_the_commit_removes_what_was_kept(sink, bucket, open_writer):
    writer = open_writer(sink)
    committables = kept(writer, "a")
    writer.keep(committables)  # A second savepoint refers to it too.
    writer.sync()
    commit_again(sink, committables)
    writer.keep(committables)  # A third one began while the commit was under way.
    writer.sync()

    assert bucket.kept() == []
    assert bucket.lines() == ["a"]


def test_an_upload_that_a_savepoint_refers_to_and_a_rule_of_the_bucket_has_aborted_is_lost(
    sink, bucket, open_writer
):
    committables = kept(open_writer(sink), "a")
    bucket.abort_uploads()
    key = f"out/.{PART.removeprefix('out/')}-0-1-0.savepoint"

    with pytest.raises(OutputLostError, match="upload that a savepoint refers to is missing") as raised:
        commit_again(sink, committables, job_id="f" * 32)

    assert f"remove the object {bucket.url}/{key}" in raised.value.hint
    bucket.remove(key)
    commit_again(sink, committables, job_id="f" * 32)


def test_what_another_directory_has_pre_committed_is_committed_there(sink, bucket, open_writer, tmp_path):
    """A job that wrote to a disk goes on with a bucket, or the other way round."""
    on_disk = FileSink.lines(tmp_path)
    committables = prepared(open_writer(on_disk), "a") + prepared(open_writer(sink), "b")

    commit_again(sink, committables, attempt=2)

    assert [path.read_text() for path in visible_files(tmp_path)] == ["a\n"]
    assert bucket.lines() == ["b"]
