"""Objects of the file sink appear whole, once, and only when their checkpoint is complete."""

import asyncio

import msgspec
import pytest

from raystream.connectors import object_sink
from raystream.connectors.file_place import marker_name
from raystream.connectors.files import FileSink
from raystream.connectors.object_place import taken_name
from raystream.connectors.upload_committable import decode_upload, encode_upload
from raystream.errors import ConfigError, OutputLostError, StorageError
from raystream.records.batch import RowBatch
from raystream.storage import s3_uploads
from raystream.storage.s3_requests import Requests
from raystream.testing.contracts import SinkContract
from tests.services.object_sinks import PART, commit_again, prepared, warnings
from tests.unit.connectors.sinks import JOB_ID, commit, context_of, visible_files


class TestObjectSinkContract(SinkContract):
    seeds = range(5)

    @pytest.fixture(autouse=True)
    def _output(self, output):
        self.output = output

    def sink(self):
        return FileSink.lines(f"{self.output.url}/made/when needed")

    def visible(self):
        return self.output.lines()

    def record(self, number):
        return f"record {number}"


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


# ---- names and parts ----------------------------------------------------------


def test_an_object_is_named_after_operator_job_subtask_attempt_and_counter(sink, output, open_writer):
    writer = open_writer(sink, uid="count/hits é", subtask=3, parallelism=4, attempt=7)
    for text in ("a", "b"):
        writer.write(RowBatch([text]))
        commit(sink, writer)

    name = "out/part-count%2Fhits%20%C3%A9-0123456789abcdef-3-7-"
    assert output.visible() == {f"{name}0": b"a\n", f"{name}1": b"b\n"}
    assert output.objects().keys() - output.visible().keys() == {f"out/{marker_name(JOB_ID)}"}
    assert output.uploads() == []


def test_objects_may_be_at_the_root_of_a_bucket(output, open_writer):
    sink = FileSink.json_lines(output.url)
    commit_again(sink, prepared(open_writer(sink), {"a": 1}))

    assert output.visible() == {"part-sink-0123456789abcdef-0-1-0": b'{"a":1}\n'}


def test_a_job_that_starts_from_a_savepoint_of_another_collides_with_none_of_its_objects(
    sink, output, open_writer
):
    for job_id in ("a" * 32, "b" * 32):
        writer = open_writer(sink, job_id=job_id)
        writer.write(RowBatch([job_id[:1]]))
        commit(sink, writer)

    assert output.lines() == ["a", "b"]


def test_large_output_is_uploaded_in_parts_while_records_come(sink, output, open_writer):
    writer = open_writer(sink)
    texts = [letter * object_sink.PART_BYTES for letter in "ab"]
    for text in texts:
        writer.write(RowBatch([text]))
    writer._upload.wait()
    assert output.part_sizes() == [object_sink.PART_BYTES + 1] * 2, "before any checkpoint"

    commit_again(sink, prepared(writer, "the rest"))

    assert output.lines() == [*texts, "the rest"]


def test_an_upload_that_has_all_parts_it_may_have_is_followed_by_another(
    sink, output, open_writer, monkeypatch
):
    monkeypatch.setattr(object_sink, "PART_BYTES", 1)
    monkeypatch.setattr(object_sink, "PARTS_MAX", 1)
    writer = open_writer(sink)
    writer.write(RowBatch(["a"]))
    writer.write(RowBatch(["b"]))
    assert output.visible() == {}

    committables = prepared(writer, "c")
    commit_again(sink, committables)

    assert len(committables) == 3
    assert output.lines() == ["a", "b", "c"]


def test_only_few_parts_are_in_memory(sink, open_writer, monkeypatch):
    monkeypatch.setattr(object_sink, "PART_BYTES", 1)
    writer = open_writer(sink)
    for text in "abcdef":
        writer.write(RowBatch([text]))
        assert len(writer._upload._on_the_way) <= s3_uploads.PARTS_ON_THE_WAY_MAX

    assert writer._upload.part_count == 6
    writer.abort()


@pytest.mark.parametrize("before_it", [0, s3_uploads.PARTS_ON_THE_WAY_MAX])
def test_the_stream_waits_for_no_part_at_a_checkpoint(sink, output, open_writer, before, before_it):
    """The store keeps every part waiting until the pre-commit has returned, those before it too."""
    writer = open_writer(sink)
    returned = asyncio.Event()
    before["upload_part"] = returned.wait
    with pytest.MonkeyPatch.context() as small:
        small.setattr(object_sink, "PART_BYTES", 1)
        for text in ["a" * (5 << 20)] * before_it:
            writer.write(RowBatch([text]))
    writer.write(RowBatch(["a"]))

    committables = writer.prepare_commit(1)

    writer._store.uploads._requests._session.loop.call_soon_threadsafe(returned.set)
    writer.sync()
    commit_again(sink, committables)
    assert output.lines()[before_it:] == ["a"]
    assert len(output.lines()) == before_it + 1


def test_a_store_that_does_not_answer_holds_up_no_attempt_that_ends(
    sink, output, open_writer, before, monkeypatch
):
    """The slot's thread must answer that it has stopped; else its process is killed."""
    monkeypatch.setattr(object_sink, "CLEAN_UP_SECONDS_MAX", 0.01)
    writer = open_writer(sink, attempt=2)
    writer.write(RowBatch(["a"]))
    assert writer._upload.upload_id
    answering = asyncio.Event()
    before["abort_multipart_upload"] = before["list_multipart_uploads"] = answering.wait

    writer.abort()
    writer.close()

    assert output.uploads() == [f"{PART}-0-2-0"]
    writer._store.uploads._requests._session.loop.call_soon_threadsafe(answering.set)


def test_an_empty_batch_begins_nothing(sink, output, open_writer):
    writer = open_writer(sink)
    writer.write(RowBatch([]))

    assert writer.prepare_commit(1) == []
    assert output.uploads() == []


# ---- what is missing ----------------------------------------------------------


def test_an_upload_of_this_attempt_that_is_gone_is_lost_and_the_others_are_committed(
    sink, output, open_writer
):
    writer = open_writer(sink)
    committables = [raw for text in "abc" for raw in prepared(writer, text)]
    output.abort_uploads(f"{PART}-0-1-1")

    with pytest.raises(OutputLostError, match="pre-committed output is missing") as raised:
        commit_again(sink, committables)

    assert raised.value.context["path"] == f"{output.url}/{PART}-0-1-1"
    assert output.lines() == ["a", "c"]


def test_an_upload_that_lacks_a_part_is_lost(sink, output, open_writer):
    """As if the store had forgotten it."""
    writer = open_writer(sink)
    [raw] = prepared(writer, "a")
    upload = decode_upload(raw)
    output.client.upload_part(
        Bucket=output.name, Key=f"{PART}-0-1-0", UploadId=upload.upload_id, PartNumber=1, Body=b""
    )

    with pytest.raises(OutputLostError, match="not whole"):
        commit_again(sink, [raw])
    assert output.visible() == {}


def test_output_that_a_reader_has_taken_away_does_not_stop_a_restore(sink, output, open_writer, caplog):
    writer = open_writer(sink)
    committables = [raw for text in "ab" for raw in prepared(writer, text)]
    commit_again(sink, committables)
    output.remove(f"{PART}-0-1-0")

    for changes in ({"attempt": 2}, {"job_id": "f" * 32}):
        caplog.clear()
        commit_again(sink, committables, **changes)
        assert [record.path for record in warnings(caplog)] == [f"{output.url}/{PART}-0-1-0"]
    assert output.lines() == ["b"]


def test_missing_output_that_a_rule_may_have_aborted_is_lost_until_somebody_says_that_it_was_read(
    sink, output, open_writer, caplog
):
    """A job goes on from its newest checkpoint after a day: the bucket aborts uploads of that age."""
    [raw] = prepared(open_writer(sink), "a")
    upload = decode_upload(raw)
    old = msgspec.structs.replace(upload, begun_ms=upload.begun_ms - object_sink.ABORTED_AFTER_MS_MIN)
    committables = [encode_upload(old)]
    output.abort_uploads()

    with pytest.raises(OutputLostError, match="may have aborted its upload") as raised:
        commit_again(sink, committables, attempt=2)

    key = f"out/{taken_name(JOB_ID)}"
    assert f"put an object {output.url}/{key} there" in raised.value.hint
    output.client.put_object(Bucket=output.name, Key=key, Body=b"")
    commit_again(sink, committables, attempt=2)
    assert [record.path for record in warnings(caplog)] == [upload.url]


@pytest.mark.parametrize("marked", [False, True], ids=["gone", "made anew"])
def test_output_is_not_missed_in_a_bucket_that_is_another_one(sink, output, open_writer, marked):
    committables = prepared(open_writer(sink), "a")
    output.abort_uploads()
    output.remove(*output.objects())
    if marked:
        open_writer(sink)

    with pytest.raises(StorageError, match="prefix is not known to be") as raised:
        commit_again(sink, committables, attempt=2)

    assert type(raised.value) is StorageError, "it is tried again"


def test_another_object_under_the_name_is_never_replaced(sink, output, open_writer):
    committables = prepared(open_writer(sink), "mine")
    output.client.put_object(Bucket=output.name, Key=f"{PART}-0-1-0", Body=b"theirs\n")

    with pytest.raises(StorageError, match="cannot be committed") as raised:
        commit_again(sink, committables)

    assert raised.value.context["reason"] == "another object has its name"
    assert output.lines() == ["theirs"]


def test_a_part_that_the_store_refuses_fails_every_later_snapshot(sink, output, open_writer, before):
    async def refuse():
        raise OSError(5, "Input/output error")

    before["upload_part"] = refuse
    writer = open_writer(sink)
    writer.write(RowBatch(["a"]))
    writer.prepare_commit(1)

    for message in ("could not store part of file", "output was not written"):
        with pytest.raises(StorageError, match=message) as raised:
            writer.sync()
        assert raised.value.context["path"] == f"{output.url}/{PART}-0-1-0"


def test_a_bucket_that_is_not_there_is_named(output):
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
    sink, output, open_writer
):
    writer = open_writer(sink)
    committables = kept(writer, "a")
    prepared(writer, "b")

    again = open_writer(sink, attempt=2)
    again.close()
    assert output.uploads() == output.kept() == [f"{PART}-0-1-0"]
    for _ in range(2):
        commit_again(sink, committables, job_id="f" * 32)

    assert output.lines() == ["a"]
    assert output.uploads() == output.kept() == []


def test_the_commit_removes_what_was_kept(sink, output, open_writer):
    writer = open_writer(sink)
    committables = kept(writer, "a")
    writer.keep(committables)  # A second savepoint refers to it too.
    writer.sync()
    commit_again(sink, committables)
    writer.keep(committables)  # A third one began while the commit was under way.
    writer.sync()

    assert output.kept() == []
    assert output.lines() == ["a"]


def test_an_upload_that_a_savepoint_refers_to_and_a_rule_of_the_bucket_has_aborted_is_lost(
    sink, output, open_writer
):
    committables = kept(open_writer(sink), "a")
    output.abort_uploads()
    key = f"out/.{PART.removeprefix('out/')}-0-1-0.savepoint"

    with pytest.raises(OutputLostError, match="upload that a savepoint refers to is missing") as raised:
        commit_again(sink, committables, job_id="f" * 32)

    assert f"remove the object {output.url}/{key}" in raised.value.hint
    output.remove(key)
    commit_again(sink, committables, job_id="f" * 32)


def test_what_another_directory_has_pre_committed_is_committed_there(sink, output, open_writer, tmp_path):
    """A job that wrote to a disk goes on with a output, or the other way round."""
    on_disk = FileSink.lines(tmp_path)
    committables = prepared(open_writer(on_disk), "a") + prepared(open_writer(sink), "b")

    commit_again(sink, committables, attempt=2)

    assert [path.read_text() for path in visible_files(tmp_path)] == ["a\n"]
    assert output.lines() == ["b"]
