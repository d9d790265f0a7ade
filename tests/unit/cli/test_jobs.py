"""The commands on jobs find the job that is meant, and print results and nothing else."""

import json
import re

import pytest

from raystream.api.runner import CancelRequest, SavepointRequest, StopRequest
from raystream.cli import jobs
from raystream.cli.listing import JobRow, matching_job
from raystream.errors import CheckpointError, ClusterNotFoundError, JobNotFoundError
from raystream.handles import SavepointFormat
from raystream.ids import JobId, JobStatus
from raystream.records.elements import SnapshotKind
from raystream.runtime.coordinator_view import archived
from raystream.storage.archive import write_archive
from raystream.storage.blobs import SnapshotFiles
from raystream.storage.layout import JobLayout
from raystream.storage.snapshots import SnapshotStore
from raystream.storage.stores import open_file_system
from tests.unit.cli.fakes import FakeJob, checkpoint, view
from tests.unit.storage import sample

HITS = view(
    job_id=JobId("ab" * 16), name="hits", parallelism=2, records_in=1_000, records_out=990, restarts=1,
    last_checkpoint_id=8, checkpoints=(checkpoint(7), checkpoint(8)),
)  # fmt: skip
WORDS = view(job_id=JobId("ac" * 16), name="words [de]")
OLD_HITS = view(JobStatus.FINISHED, job_id=JobId("ff" * 16), name="hits")


class FakeCluster:
    """A cluster with these jobs; requests are answered by what `answer` returns."""

    def __init__(self, *views):
        self.views = list(views)
        self.requests = []
        self.answer = lambda request: "file:///savepoints/savepoint-ababab-1"

    def attach(self, job_id, *, address=None):
        row = matching_job([JobRow.of(one) for one in self.views], job_id)
        job = FakeJob([], now=view(job_id=row.job_id))
        job.request = self.request
        return job

    def request(self, request):
        self.requests.append(request)
        return self.answer(request)


@pytest.fixture
def cluster(monkeypatch):
    cluster = FakeCluster(HITS, WORDS, OLD_HITS)
    monkeypatch.setattr(jobs.Jobs, "running", lambda self: cluster.views)
    monkeypatch.setattr(jobs, "runner_named", lambda name: cluster)
    return cluster


@pytest.fixture
def no_cluster(monkeypatch):
    def running(self, *wanted):
        raise ClusterNotFoundError("no Ray cluster runs on this machine", hint="start one")

    monkeypatch.setattr(jobs.Jobs, "running", running)
    monkeypatch.setattr(jobs.Jobs, "client", running)


@pytest.fixture
def archive(tmp_path):
    """Leave the archive of a job in a checkpoint directory, and return the options that name it."""
    directory = str(tmp_path / "checkpoints")

    def leave(job):
        fs = open_file_system(f"file://{directory}")
        write_archive(fs, JobLayout(directory, job.job_id), archived(job, job.status))
        return ("-D", f"execution.checkpointing.dir={directory}")

    return leave


# ---- list -------------------------------------------------------------------


def test_list_shows_the_jobs_that_run(raystream, cluster):
    outcome = raystream("list")

    assert (outcome.code, outcome.err) == (0, "")
    assert [re.split(r" {2,}", line.strip()) for line in outcome.out.splitlines()] == [
        ["job", "name", "status", "parallelism", "in", "out", "restarts", "last checkpoint"],
        [HITS.job_id, "hits", "RUNNING", "2", "1,000", "990", "1", "8"],
        [WORDS.job_id, "words [de]", "RUNNING", "1", "0", "0", "0", "-"],
    ]


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


@pytest.mark.parametrize("command", ["savepoint", "stop", "cancel", "checkpoints"])
def test_job_that_is_not_there_ends_with_3(raystream, cluster, command):
    outcome = raystream(command, "nobody")

    assert (outcome.code, outcome.out) == (3, "")
    assert outcome.err.splitlines() == [
        "error: no job has this id, prefix or name (job='nobody')",
        "hint: `raystream list -a` shows all jobs",
    ]


@pytest.mark.parametrize("command", ["savepoint", "stop", "cancel", "checkpoints"])
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


def test_stop_prints_the_savepoint(raystream, cluster):
    outcome = raystream("stop", "ab")

    assert outcome.out == "file:///savepoints/savepoint-ababab-1\n"
    assert isinstance(cluster.requests[0], StopRequest)


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


def test_savepoint_that_is_aborted_ends_with_1(raystream, cluster):
    def refuse(request):
        raise CheckpointError("savepoint was aborted: declined", hint="try again")

    cluster.answer = refuse

    outcome = raystream("savepoint", "hits")

    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.error == ["error: savepoint was aborted: declined", "hint: try again"]


# ---- checkpoints ------------------------------------------------------------

HISTORY = (
    checkpoint(1, uploaded_bytes=512),
    checkpoint(2, "failed", failure="declined: disk is full", size_bytes=0),
    checkpoint(3, "pending", size_bytes=0, duration_ms=0.0, kind=SnapshotKind.SAVEPOINT),
)


def test_checkpoints_are_shown_with_what_became_of_them(raystream, cluster):
    cluster.views = [view(checkpoints=HISTORY)]

    lines = raystream("checkpoints", "numbers").out.splitlines()

    assert [re.split(r" {2,}", line.strip()) for line in lines] == [
        ["id", "kind", "status", "triggered", "duration", "size", "written", "path or failure"],
        [
            "1", "checkpoint", "completed", "2025-10-09 08:53:20Z", "84 ms", "2.0 KiB", "512 B",
            "file:///checkpoints/5eed/chk-1",
        ],
        [
            "2", "checkpoint", "failed", "2025-10-09 08:53:20Z", "84 ms", "0 B", "0 B",
            "declined: disk is full",
        ],
        ["3", "savepoint", "pending", "2025-10-09 08:53:20Z", "0 ms", "0 B", "0 B", "-"],
    ]  # fmt: skip


def test_checkpoints_as_json(raystream, cluster):
    cluster.views = [view(checkpoints=HISTORY)]

    rows = json.loads(raystream("checkpoints", "numbers", "--json").out)

    assert rows[0] == {
        "checkpoint_id": 1,
        "kind": "checkpoint",
        "status": "completed",
        "triggered_ms": 1_760_000_000_000,
        "duration_ms": 84.0,
        "size_bytes": 2048,
        "uploaded_bytes": 512,
        "path": "file:///checkpoints/5eed/chk-1",
        "failure": "",
    }
    assert [row["status"] for row in rows] == ["completed", "failed", "pending"]


@pytest.mark.parametrize("gone", [True, False])
def test_checkpoints_that_were_deleted_have_no_path(raystream, cluster, archive, gone):
    """Whether the job master still answers or only its archive."""
    job = view(JobStatus.FINISHED, checkpoints=[checkpoint(1, path=""), checkpoint(2)])
    cluster.views = [] if gone else [job]
    options = archive(job)

    rows = json.loads(raystream("checkpoints", "numbers", "--json", *options).out)

    assert [(row["status"], row["path"]) for row in rows] == [
        ("deleted", ""), ("completed", "file:///checkpoints/5eed/chk-2")
    ]  # fmt: skip


def test_checkpoints_of_a_job_whose_master_is_gone_come_from_its_archive(raystream, no_cluster, archive):
    options = archive(view(JobStatus.FAILED, checkpoints=HISTORY[:2]))

    rows = json.loads(raystream("checkpoints", "numbers", "--json", *options).out)

    assert [(row["checkpoint_id"], row["status"]) for row in rows] == [(1, "completed"), (2, "failed")]
    assert [(row["size_bytes"], row["uploaded_bytes"]) for row in rows] == [(2048, 512), (0, 0)]
