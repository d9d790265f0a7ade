"""Whatever dies between upload, checkpoint and commit: each record appears once, and no upload is left."""

import pytest

from raystream.connectors import object_sink
from raystream.connectors.files import FileSink
from raystream.errors import StorageError
from raystream.records.batch import RowBatch
from raystream.storage.s3_uploads import Uploads
from tests.services.object_sinks import PART, Output, commit_again, prepared, warnings
from tests.unit.connectors.sinks import context_of


def test_what_was_uploaded_and_is_in_no_checkpoint_is_aborted_by_the_next_attempt(sink, output, open_writer):
    """Killed between upload and checkpoint; another record was on its way."""
    writer = open_writer(sink)
    prepared(writer, "a")
    writer.write(RowBatch(["b"]))
    assert writer._upload.upload_id
    assert output.uploads() == [f"{PART}-0-1-0", f"{PART}-0-1-1"]

    open_writer(sink, attempt=2)

    assert output.uploads() == []
    assert output.visible() == {}


def test_what_a_checkpoint_has_is_committed_by_the_next_attempt_before_it_aborts_the_rest(
    sink, output, open_writer
):
    """Killed between checkpoint and commit."""
    writer = open_writer(sink)
    committables = prepared(writer, "a")
    prepared(writer, "in no checkpoint")

    commit_again(sink, committables, attempt=2)
    open_writer(sink, attempt=2)

    assert output.lines() == ["a"]
    assert output.uploads() == []


def test_a_commit_whose_success_nobody_noted_is_repeated_without_effect(sink, output, open_writer, caplog):
    """Killed between commit and its note; another job may restore the same checkpoint."""
    committables = prepared(open_writer(sink), "a")
    commit_again(sink, committables)
    before = output.objects()

    for changes in ({}, {"attempt": 2}, {"job_id": "f" * 32}):
        commit_again(sink, committables, **changes)

    assert output.objects() == before
    assert warnings(caplog) == []


def test_a_commit_whose_answer_was_lost_has_succeeded(sink, output, open_writer):
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

    assert output.lines() == ["a"]


@pytest.mark.parametrize("behind", ["parts", "complete"])
def test_commits_of_two_attempts_that_overlap_both_succeed(sink, output, open_writer, monkeypatch, behind):
    """The older attempt's commit is still under way when the newer one repeats it."""
    committables = prepared(open_writer(sink), "a")
    call = getattr(Uploads, behind)

    def the_other_is_faster(uploads, *arguments):
        monkeypatch.setattr(Uploads, behind, call)
        commit_again(sink, committables, attempt=2)
        return call(uploads, *arguments)

    monkeypatch.setattr(Uploads, behind, the_other_is_faster)
    commit_again(sink, committables)

    assert output.lines() == ["a"]


def test_start_aborts_what_dead_attempts_of_this_job_left_and_nothing_else(sink, output, open_writer):
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
        output.client.create_multipart_upload(Bucket=output.name, Key=key)

    open_writer(sink, subtask=0, parallelism=2, attempt=3)

    assert output.uploads() == sorted(others)


def test_all_subtasks_together_abort_everything_a_larger_attempt_left(sink, output, open_writer):
    for subtask in range(5):
        prepared(open_writer(sink, subtask=subtask, parallelism=5), "x")
    assert len(output.uploads()) == 5

    for subtask in range(2):
        open_writer(sink, subtask=subtask, parallelism=2, attempt=2)

    assert output.uploads() == []


def test_close_aborts_what_a_stopped_process_of_an_older_attempt_began_after_the_start(
    sink, output, open_writer
):
    stopped = open_writer(sink)
    writer = open_writer(sink, attempt=2)
    prepared(stopped, "late")
    prepared(writer, "a")

    writer.close()

    assert output.uploads() == [f"{PART}-0-2-0"]


def test_close_before_the_start_leaves_what_is_not_committed_yet(sink, output, open_writer):
    prepared(open_writer(sink), "a")
    sink.open_writer(context_of(attempt=2)).close()

    assert output.uploads() == [f"{PART}-0-1-0"]


def test_abort_leaves_only_what_was_pre_committed(sink, output, open_writer, monkeypatch):
    monkeypatch.setattr(object_sink, "PART_BYTES", 1)
    monkeypatch.setattr(object_sink, "PARTS_MAX", 1)
    writer = open_writer(sink)
    prepared(writer, "a")
    writer.write(RowBatch(["an upload that has all its parts"]))
    monkeypatch.setattr(object_sink, "PART_BYTES", 1000)
    writer.write(RowBatch(["one that has not"]))
    assert all(upload.upload_id for upload in (*writer._ended, writer._upload)), "the store knows both"

    writer.abort()
    writer.abort()

    assert output.uploads() == [f"{PART}-0-1-0"]


# ---- answers that are lost ----------------------------------------------------


@pytest.mark.parametrize(
    "request_of",
    [r"POST .*\?uploads", "PUT .*partNumber=", "GET .*uploadId=", "POST .*uploadId=", r"GET .*\?uploads"],
    ids=["begin", "part", "parts", "complete", "list"],
)
def test_a_request_whose_answer_is_lost_is_repeated(faulty, open_writer, request, request_of):
    """It was done, so that the repetition meets what it has left."""
    name = f"lost-{request.node.callspec.id}"
    faulty.client.create_bucket(Bucket=name)
    output = Output(faulty.client, name)
    sink = FileSink.lines(f"{output.url}/out")
    prepared(open_writer(sink), "of a dead attempt")
    faulty.faults({"match": request_of, "kind": "lose", "times": 1})

    committables = prepared(open_writer(sink, attempt=2), "a")
    assert output.uploads() == [f"{PART}-0-2-0"]
    commit_again(sink, committables, attempt=2)

    assert output.lines() == ["a"]
    assert output.uploads() == []
