"""The driver of a Ray job says what its command says, and outlasts a client that is killed."""

import io
import sys
from types import SimpleNamespace

import pytest

from raystream.api.runner import CancelRequest
from raystream.cli import driver
from raystream.cli.attend import JOB_IDS_VARIABLE
from raystream.cluster.versions import own_versions, versions_text
from raystream.ids import JobStatus
from tests.unit.cli.conftest import SCRIPT
from tests.unit.cli.fakes import CREATED, FINISHED, RUNNING, FakeJob, view

JOB_ID = "5eed" * 8


@pytest.fixture
def children(monkeypatch):
    """Replace child processes; each takes what it starts, a stream job or none, and its exit code."""
    ran, ends = [], []

    def child(self, module, *arguments):
        ran.append((module, *arguments))
        started, code = ends.pop(0)
        if started:
            with self._jobs.open("a") as file:
                file.write(f"{started}\n")
        return code

    monkeypatch.setattr(driver._Driver, "_child", child)
    monkeypatch.setattr(driver.signal, "signal", lambda *_: None)
    monkeypatch.setattr(driver, "configure_logging", lambda: None)
    return ran, ends


def drive(*command):
    return driver.main([versions_text(own_versions()), *command])


@pytest.mark.parametrize("code", [0, 1, 2, 143])
def test_exit_code_is_that_of_the_command(children, code):
    ran, ends = children
    ends.append((JOB_ID, code))

    assert drive("run", "job.py") == code
    assert ran == [("raystream.cli", "run", "job.py")]


def test_client_that_is_killed_is_replaced_by_one_that_waits_for_its_job(children):
    ran, ends = children
    ends += [(JOB_ID, -9), (None, -9), (None, 1)]

    assert drive("run", "job.py") == 1
    assert ran[1:] == [("raystream.cli.driver", "attend", JOB_ID)] * 2


def test_client_in_the_place_of_a_killed_one_knows_the_time_that_the_job_has_to_start(children):
    ran, ends = children
    ends += [(f"{JOB_ID} 2000", -9), (None, 0)]

    assert drive("run", "--timeout", "2s", "job.py") == 0
    assert ran[1:] == [("raystream.cli.driver", "attend", JOB_ID, "2000")]


@pytest.mark.parametrize(
    ("now", "steps", "code", "requests"),
    [
        (CREATED, [view(JobStatus.CREATED, waiting_for="1 slot")], 1, [CancelRequest]),
        (view(JobStatus.RESTARTING), [view(JobStatus.RESTARTING), FINISHED], 0, []),
        (view(JobStatus.CREATED, recovering=True), [CREATED, FINISHED], 0, []),
        (CREATED, [view(JobStatus.RESTARTING), FINISHED], 0, []),
        (CREATED, [RUNNING, FINISHED], 0, []),
    ],
)
def test_job_that_never_runs_is_given_up_in_place_of_a_killed_client(monkeypatch, now, steps, code, requests):
    job = FakeJob(steps, now=now)
    monkeypatch.setattr(driver, "runner_named", lambda _: SimpleNamespace(attach=lambda _: job))
    monkeypatch.setattr(driver, "configure_logging", lambda: None)

    assert driver.main(["attend", JOB_ID, "0"]) == code
    assert [type(request) for request in job.requests] == requests


def test_client_that_is_killed_before_it_has_started_a_job_is_not_replaced(children):
    ran, ends = children
    ends.append((None, -9))

    assert drive("run", "job.py") == 137
    assert len(ran) == 1


def test_client_of_another_version_is_refused_with_both_versions(children, capsys):
    ran, _ = children
    theirs = {**own_versions(), "raystream": "0.0.9"}

    assert driver.main([versions_text(theirs), "run", "job.py"]) == 2
    assert ran == []
    error = capsys.readouterr().err
    assert "cluster has another version of raystream" in error
    assert "client='0.0.9'" in error
    assert "hint: install the same version" in error


def test_lines_of_standard_output_are_marked_in_the_log(monkeypatch):
    log = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(log))

    driver._mark(io.BytesIO(b"1> a\n1> b"))

    assert log.getvalue() == b"\x1f1> a\n\x1f1> b\n"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A directory that Ray has unpacked for the Ray job which this process is the client of."""
    directory = tmp_path / "working_dir_files" / "_ray_pkg_5eed"
    directory.mkdir(parents=True)
    monkeypatch.chdir(directory)
    monkeypatch.setenv(JOB_IDS_VARIABLE, str(tmp_path / "jobs"))
    return directory


DIRECTORIES = [
    ("execution.checkpointing.dir", "some/where"),
    ("execution.checkpointing.dir", "../elsewhere"),
    ("execution.checkpointing.savepoint-dir", "."),
]


@pytest.mark.parametrize("directory", DIRECTORIES)
def test_directory_that_goes_with_a_ray_job_is_refused(raystream, script, jobs_do, package, directory):
    key, where = directory
    runner = jobs_do(FakeJob([FINISHED]), FakeJob([FINISHED]))
    path = script()

    refused = raystream("run", "-D", f"{key}={where}", path)

    assert (refused.code, runner.submissions) == (2, [])
    assert f"(key={key!r} path='{(package / where).resolve().as_uri()}')" in refused.err
    assert raystream("run", "-D", f"{key}={package.parent}-not", path).code == 0


@pytest.mark.usefixtures("package")
def test_directory_of_a_job_that_is_no_ray_job_is_where_it_says(raystream, script, jobs_do, monkeypatch):
    monkeypatch.delenv(JOB_IDS_VARIABLE)
    jobs_do(FakeJob([FINISHED]))

    assert raystream("run", "-D", "execution.checkpointing.dir=some/where", script()).code == 0


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("asked", ["savepoint", "stop"])
def test_savepoint_that_would_go_with_a_ray_job_is_refused_to_its_script(raystream, script, jobs_do, asked):
    job = FakeJob([FINISHED])
    jobs_do(job)
    text = SCRIPT.replace('env.execute("numbers")', f'env.submit("numbers").{asked}("here")')

    assert "(key='directory' path=" in raystream("run", script(text)).err
    assert job.requests == []
