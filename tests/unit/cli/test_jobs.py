"""The commands on jobs find the job that is meant, and print results and nothing else."""

import json
import re

import pytest

from raystream.api.runner import (
    CancelRequest,
    CheckpointRequest,
    RescaleRequest,
    SavepointRequest,
)
from raystream.cli.listing import JobRow, matching_job
from raystream.errors import CheckpointError, ConfigError, JobNotFoundError
from raystream.handles import SavepointFormat
from raystream.ids import JobId, JobStatus
from raystream.records.elements import SnapshotKind
from raystream.storage.blobs import SnapshotFiles
from raystream.storage.snapshots import SnapshotStore
from tests.unit.cli.fakes import HITS, OLD_HITS, WORDS, view
from tests.unit.storage import sample

# ---- list -------------------------------------------------------------------


def test_list_shows_the_jobs_that_run(raystream, cluster):
    outcome = raystream("list")

    assert (outcome.code, outcome.err) == (0, "")
    assert [re.split(r" {2,}", line.strip()) for line in outcome.out.splitlines()] == [
        ["job", "name", "status", "parallelism", "in", "out", "restarts", "last checkpoint"],
        [HITS.job_id, "hits", "RUNNING", "2", "1,000", "990", "1", "8"],
        [WORDS.job_id, "words [de]", "RUNNING", "1", "0", "0", "0", "-"],
    ]


def test_list_tells_what_a_job_waits_for_and_for_how_long(raystream, cluster):
    cluster.views = [view(JobStatus.CREATED, name="hits", waiting_for="2 of 4 slots", waiting_ms=65_000)]

    for options in ((), ("--json",)):
        outcome = raystream("list", *options)
        assert outcome.err == "'hits' is waiting for resources for 0:01:05: 2 of 4 slots\n"


def test_list_as_json_has_exactly_the_documented_fields(raystream, cluster):
    outcome = raystream("list", "--json", "-a")

    rows = json.loads(outcome.out)
    assert rows[0] == {
        "job_id": HITS.job_id,
        "name": "hits",
        "status": "RUNNING",
        "parallelism": 2,
        "records_in": 1_000,
        "records_out": 990,
        "restarts": 1,
        "last_checkpoint_id": 8,
    }
    assert [row["status"] for row in rows] == ["RUNNING", "RUNNING", "FINISHED"]
    assert rows[1]["last_checkpoint_id"] is None


def test_empty_list_is_nothing_on_standard_output(raystream, cluster):
    cluster.views = [OLD_HITS]

    assert raystream("list").out == ""
    assert raystream("list", "--json").out == "[]\n"


def test_list_without_a_cluster_ends_with_3(raystream, no_cluster):
    outcome = raystream("list")

    assert (outcome.code, outcome.out) == (3, "")
    assert outcome.err == "error: no Ray cluster runs on this machine\nhint: start one\n"


def test_list_of_all_jobs_finds_those_whose_masters_are_gone(raystream, cluster, archive):
    gone = view(JobStatus.CANCELED, job_id=JobId("0" * 32), name="gone")
    options = archive(gone)
    archive(OLD_HITS)  # Its master lingers, too.

    rows = json.loads(raystream("list", "-a", "--json", *options).out)

    assert [row["name"] for row in rows] == ["hits", "words [de]", "hits", "gone"]


def test_archives_are_listed_without_a_cluster(raystream, no_cluster, archive):
    options = archive(OLD_HITS)

    assert [row["job_id"] for row in json.loads(raystream("list", "-a", "--json", *options).out)] == [
        "ff" * 16
    ]


# ---- which job --------------------------------------------------------------

ROWS = [JobRow.of(job) for job in (HITS, WORDS, OLD_HITS)]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [("ab" * 16, HITS), ("ab", HITS), ("f", OLD_HITS), ("words [de]", WORDS), ("hits", HITS)],
)
def test_job_is_found_by_id_prefix_or_name(wanted, found):
    assert matching_job(ROWS, wanted).job_id == found.job_id


def test_job_that_runs_is_meant_rather_than_one_that_has_ended():
    assert matching_job(list(reversed(ROWS)), "hits").job_id == HITS.job_id


def test_several_matches_are_an_error_that_lists_them():
    with pytest.raises(JobNotFoundError, match="more than one job") as caught:
        matching_job(ROWS, "a")

    assert HITS.job_id in caught.value.hint


def test_empty_text_means_no_job_even_if_there_is_only_one():
    with pytest.raises(JobNotFoundError, match="no job has this id"):
        matching_job(ROWS[:1], "")


@pytest.mark.parametrize("command", ["savepoint", "checkpoint", "stop", "cancel", "checkpoints"])
def test_job_that_is_not_there_ends_with_3(raystream, cluster, command):
    outcome = raystream(command, "nobody")

    assert (outcome.code, outcome.out) == (3, "")
    assert outcome.err.splitlines() == [
        "error: no job has this id, prefix or name (job='nobody')",
        "hint: `raystream list -a` shows all jobs",
    ]


@pytest.mark.parametrize("command", ["savepoint", "checkpoint", "stop", "cancel", "checkpoints"])
def test_commands_without_a_cluster_end_with_3(raystream, no_cluster, command):
    assert raystream(command, "hits").code == 3


# ---- what is done to it -----------------------------------------------------


def test_savepoint_prints_its_path_and_nothing_else(raystream, cluster):
    outcome = raystream("savepoint", "hits")

    assert (outcome.code, outcome.out, outcome.err) == (0, "file:///savepoints/savepoint-ababab-1\n", "")
    (request,) = cluster.requests
    assert isinstance(request, SavepointRequest)
    assert request.directory is None


@pytest.mark.parametrize("command", ["savepoint", "stop"])
@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ((), SavepointFormat.CANONICAL),
        (("--type", "canonical"), SavepointFormat.CANONICAL),
        (("--type", "native"), SavepointFormat.NATIVE),
    ],
)
def test_type_of_a_savepoint_is_canonical_unless_it_is_said(raystream, cluster, command, options, wanted):
    assert raystream(command, "hits", *options).code == 0
    assert cluster.requests[0].format is wanted


def test_type_that_does_not_exist_is_a_wrong_command_line(raystream, cluster):
    assert raystream("savepoint", "hits", "--type", "quick").code == 2
    assert cluster.requests == []


@pytest.mark.parametrize("command", [("savepoint", "hits", "sp"), ("stop", "-p", "sp", "hits")])
def test_relative_directory_is_the_one_of_this_process(raystream, cluster, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raystream(*command)

    assert cluster.requests[0].directory == f"file://{tmp_path}/sp"


@pytest.mark.parametrize("command", ["savepoint", "checkpoint", "stop", "rescale -p 3", "cancel"])
def test_interrupt_tells_that_the_job_was_asked(raystream, cluster, command):
    def interrupt(_request):
        raise KeyboardInterrupt

    cluster.answer = interrupt
    outcome = raystream(*command.split(), "ab")

    assert (outcome.code, outcome.out) == (130, "")
    assert (
        f"interrupted; job {HITS.job_id} may still do what it was asked for: `raystream list` and"
        f" `raystream checkpoints {HITS.job_id}` show it\n"
    ) in outcome.err


@pytest.fixture
def savepoint(tmp_path):
    """The directory of a savepoint with a file in directories of its own."""
    directory = tmp_path / "savepoint-012345-0a1b2c3d4e5f"
    part = sample.named_file("count-hits/hits/part-0.parquet", b"parquet")
    SnapshotFiles().write_file(directory.as_uri(), part.file, b"parquet")
    metadata = sample.snapshot(4, files=(part,), kind=SnapshotKind.SAVEPOINT)
    SnapshotStore(sample.JOB).write_metadata(directory.as_uri(), metadata)
    return directory


@pytest.mark.parametrize("named", ["directory", "file", "url", "relative"])
def test_disposed_savepoint_is_gone_and_told_about(raystream, no_cluster, savepoint, monkeypatch, named):
    monkeypatch.chdir(savepoint.parent)
    path = {
        "directory": savepoint, "file": savepoint / "_metadata", "url": savepoint.as_uri(),
        "relative": savepoint.name,
    }[named]  # fmt: skip
    outcome = raystream("savepoint", "--dispose", str(path))

    assert (outcome.code, outcome.out) == (0, "")
    assert outcome.err == (
        f"disposed of {savepoint.as_uri()}: savepoint 4 of job 'count', taken 1970-01-01 00:00:01Z, 20 B\n"
    )
    assert not savepoint.exists()

    again = raystream("savepoint", "--dispose", str(path))
    assert again.code == 2
    assert again.error[0].startswith("error: snapshot does not exist")


def test_file_that_is_missing_already_does_not_keep_a_savepoint_from_being_disposed_of(raystream, savepoint):
    next(savepoint.rglob("part-0.parquet")).unlink()

    assert raystream("savepoint", "--dispose", str(savepoint)).code == 0
    assert not savepoint.exists()


@pytest.mark.parametrize("content", [b"", b"{}", b'{"raystream":"snap'])
def test_savepoint_with_a_damaged_metadata_file_is_left_alone(raystream, savepoint, content):
    (savepoint / "_metadata").write_bytes(content)
    outcome = raystream("savepoint", "--dispose", str(savepoint))

    assert outcome.code == 2
    assert "_metadata" in outcome.error[0]
    assert outcome.error[1].startswith("hint: ")
    assert next(savepoint.rglob("part-0.parquet")).exists()


@pytest.mark.parametrize("arguments", [(), ("hits", "--dispose", "/savepoints/one")])
def test_savepoint_takes_either_a_job_or_a_path_to_dispose_of(raystream, cluster, arguments):
    outcome = raystream("savepoint", *arguments)

    assert outcome.code == 2
    assert "either a JOB, or --dispose PATH" in outcome.err
    assert cluster.requests == []


def test_cancel_prints_no_result(raystream, cluster):
    outcome = raystream("cancel", "words [de]")

    assert (outcome.code, outcome.out) == (0, "")
    assert isinstance(cluster.requests[0], CancelRequest)


@pytest.mark.parametrize(
    ("options", "directory"),
    [(("-s",), None), (("-s", "/sp"), "file:///sp"), (("--with-savepoint=/sp",), "file:///sp")],
)
def test_cancel_with_a_savepoint_prints_its_path_and_cancels_then(raystream, cluster, options, directory):
    outcome = raystream("cancel", "hits", *options)

    assert (outcome.code, outcome.out) == (0, "file:///savepoints/savepoint-ababab-1\n")
    assert [type(request) for request in cluster.requests] == [SavepointRequest, CancelRequest]
    assert cluster.requests[0].directory == directory


def test_checkpoint_prints_its_path_and_nothing_else(raystream, cluster):
    cluster.answer = lambda request: "file:///checkpoints/ab/chk-7"
    outcome = raystream("checkpoint", "hits")
    assert (outcome.code, outcome.out, outcome.err) == (0, "file:///checkpoints/ab/chk-7\n", "")
    assert raystream("checkpoint", "hits", "--full").code == 0

    assert [type(request) for request in cluster.requests] == [CheckpointRequest] * 2
    assert [request.full for request in cluster.requests] == [False, True]


def test_checkpoint_without_checkpointing_is_a_wrong_configuration(raystream, cluster):
    def refuse(request):
        raise ConfigError("checkpoint was requested of a job whose checkpointing is off")

    cluster.answer = refuse

    assert raystream("checkpoint", "hits").code == 2


def test_checkpoint_in_the_memory_of_the_job_master_has_no_path(raystream, cluster):
    cluster.answer = lambda request: ""
    outcome = raystream("checkpoint", "hits")

    assert (outcome.code, outcome.out) == (0, "")
    assert "in the memory of the job master" in outcome.err


def test_job_is_not_cancelled_when_the_savepoint_before_that_fails(raystream, cluster):
    def refuse(request):
        raise CheckpointError("savepoint was aborted: declined", hint="try again")

    cluster.answer = refuse
    outcome = raystream("cancel", "hits", "-s")

    assert (outcome.code, outcome.out) == (1, "")
    assert "error: savepoint was aborted: declined" in outcome.err
    assert [type(request) for request in cluster.requests] == [SavepointRequest]


def test_rescale_tells_the_downtime_on_standard_error(raystream, cluster):
    cluster.answer = lambda request: "1234"
    outcome = raystream("rescale", "hits", "-p", "4")

    assert (outcome.code, outcome.out) == (0, "")
    assert outcome.err == (
        f"job {HITS.job_id} gets parallelism 4; it waits up to a minute for room\n"
        f"job {HITS.job_id} has parallelism 4; downtime 1.23 s\n"
    )
    (request,) = cluster.requests
    assert isinstance(request, RescaleRequest)
    assert request.parallelism == 4


def test_rescale_of_a_job_that_can_not_have_it_ends_with_2(raystream, cluster):
    def refuse(request):
        raise ConfigError("parallelism is above the max parallelism of an operator", hint="stop the job")

    cluster.answer = refuse
    outcome = raystream("rescale", "hits", "-p", "400")

    assert (outcome.code, outcome.out) == (2, "")
    assert "above the max parallelism" in outcome.err


@pytest.mark.parametrize("number", ["0", "-1", "two"])
def test_rescale_to_no_parallelism_at_all_asks_nobody(raystream, cluster, number):
    assert raystream("rescale", "hits", "-p", number).code == 2
    assert cluster.requests == []


def test_savepoint_that_is_aborted_ends_with_1(raystream, cluster):
    def refuse(request):
        raise CheckpointError("savepoint was aborted: declined", hint="try again")

    cluster.answer = refuse

    outcome = raystream("savepoint", "hits")

    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.error == ["error: savepoint was aborted: declined", "hint: try again"]
