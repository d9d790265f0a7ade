"""`submit` takes a script along to a cluster, and says what becomes of it there."""

import re
from pathlib import Path

import pytest

from raystream.cli import packing
from raystream.cluster import ray_jobs
from raystream.cluster.packages import packed_files
from raystream.errors import RaystreamError
from tests.unit.cli.ray_jobs import RUNNING, FakeRayJobs, ended


@pytest.fixture
def ray(monkeypatch) -> FakeRayJobs:
    fake = FakeRayJobs()
    monkeypatch.setattr(ray_jobs, "RayJobs", fake)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return fake


def test_script_is_run_there_with_the_options_that_were_typed_here(raystream, script, ray, tmp_path):
    config = tmp_path / "elsewhere" / "prod.yaml"
    config.parent.mkdir()
    config.write_text("parallelism.default: 3\nexecution:\n  checkpointing:\n    interval: 30s\n")

    outcome = raystream(
        "submit", "--address", "http://head:8265", "-c", str(config), "-D", "slot.cpus=0.5", "-p", "2", "-s",
        "latest", "--claim-mode", "claim", "-n", "-d", script(), "--from", "a b",
    )  # fmt: skip

    assert outcome.code == 0, outcome.err
    assert ray.asked_at == ["http://head:8265"]
    assert ray.command == (
        "run -D execution.checkpointing.interval=30s -D parallelism.default=3 -D slot.cpus=0.5"
        " --parallelism=2 -slatest --claim-mode=claim --allow-non-restored-state --detached"
        " job.py --from 'a b'"
    )


def test_directory_of_the_script_goes_along_with_modules_and_what_the_environment_file_says(
    raystream, script, ray, tmp_path
):
    module = tmp_path / "lib" / "parsing"
    module.mkdir(parents=True)
    env = tmp_path / "env.yaml"
    env.write_text("pip: [polars]\nexcludes: ['*.log']\n")

    options = ["--py-module", str(module), "--exclude", "*.csv", "--runtime-env", str(env)]
    outcome = raystream("submit", *options, script())

    assert outcome.code == 0, outcome.err
    assert ray.submitted[0][2] == {
        "pip": ["polars"],
        "excludes": [*packing.CREDENTIALS, "*.log", "*.csv"],
        "py_modules": [str(module)],
        "working_dir": str(tmp_path),
    }


def test_file_with_the_name_of_a_module_of_python_is_pointed_out(raystream, script, ray):
    outcome = raystream("submit", script(name="numbers.py"))

    assert outcome.err.startswith("numbers.py hides the module of Python that has its name")


def test_script_may_lie_below_the_working_directory(raystream, script, ray, tmp_path):
    (tmp_path / "jobs").mkdir()

    outcome = raystream("submit", "--working-dir", str(tmp_path), script(name="jobs/count.py"))

    assert outcome.code == 0, outcome.err
    assert ray.command == "run jobs/count.py"


def test_script_elsewhere_than_in_the_working_directory_is_refused(raystream, script, ray, tmp_path):
    (tmp_path / "other").mkdir()

    outcome = raystream("submit", "--working-dir", str(tmp_path / "other"), script())

    assert outcome.code == 2
    assert outcome.error[0].startswith("error: job script is not in the working directory")


def test_configuration_is_checked_before_anything_is_sent(raystream, script, ray):
    outcome = raystream("submit", "-D", "paralelism.default=2", script())

    assert outcome.code == 2
    assert "parallelism.default" in "".join(outcome.error)
    assert ray.asked_at == []


def test_working_directory_that_is_too_large_is_refused_with_its_largest_entries(
    raystream, script, ray, tmp_path, monkeypatch
):
    monkeypatch.setattr(packing, "PACKAGE_BYTES_MAX", 3000)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "big.csv").write_bytes(b"x" * 2500)
    (tmp_path / "data" / "more.csv").write_bytes(b"x" * 700)
    (tmp_path / "notes.txt").write_bytes(b"x" * 600)
    path = script()

    refused = raystream("submit", path)
    (tmp_path / ".gitignore").write_text("more.csv\n")
    (tmp_path / "notes.txt").unlink()
    taken = raystream("submit", path)
    excluded = raystream("submit", "--exclude", "data/", path)

    assert refused.code == 2
    assert re.search(r"too large to go along \(path='.*' size='3.8 KiB' size_max='2.9 KiB'\)", refused.err)
    assert re.search(r"^ +3\.1 KiB  data/\n +600 B  notes\.txt\n", refused.err, flags=re.MULTILINE)
    assert "--exclude PATTERN" in refused.error[1]
    assert taken.code == 0, taken.err
    assert excluded.code == 0, excluded.err


def test_files_that_hold_credentials_by_their_names_stay_at_home(raystream, script, ray, tmp_path):
    for name in (
        ".env", "s3.env", "tls.pem", "tls.key", ".netrc", ".ssh/id", ".aws/credentials", ".kube/config",
        ".docker/config.json", "jobs/.ray/auth_token", "jobs/prod.env", "jobs/keys.py",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    (tmp_path / "jobs" / ".gitignore").touch()

    outcome = raystream("submit", "--exclude", "!prod.env", script())

    assert outcome.code == 0, outcome.err
    packed = packed_files(tmp_path, ray.submitted[0][2]["excludes"])
    assert [path.relative_to(tmp_path).as_posix() for path, _ in packed] == [
        "job.py", "jobs/.gitignore", "jobs/keys.py", "jobs/prod.env",
    ]  # fmt: skip


@pytest.mark.parametrize("below", [".", "ann"])
def test_home_directory_goes_along_only_when_it_is_named(raystream, script, ray, monkeypatch, below):
    path = script()
    directory = Path(path).parent
    monkeypatch.setenv("HOME", str(directory / below))

    by_itself = raystream("submit", path)
    named = raystream("submit", "--working-dir", str(directory), path)

    assert by_itself.code == 2
    assert by_itself.error[0].startswith("error: job script lies in the home directory")
    assert "--working-dir" in by_itself.error[1]
    assert named.code == 0, named.err
    assert len(ray.submitted) == 1


@pytest.mark.parametrize("name", ["a#1", "a/b", "", "-x", ".x", "a b", "a?b", "a%2F", "a\n", "ä", 101 * "a"])
def test_submission_id_that_ray_would_not_find_again_is_refused(raystream, script, ray, name):
    outcome = raystream("submit", "--submission-id", name, script())

    assert outcome.code == 2
    assert outcome.error[0].startswith("error: submission id has characters that an id may not have")
    assert ray.asked_at == []


def test_submission_id_may_have_what_names_of_branches_and_days_have(raystream, script, ray):
    assert raystream("submit", "--no-wait", "--submission-id", "Visits_2026-11.22", script()).code == 0


def test_results_go_to_standard_output_and_the_rest_to_standard_error(raystream, script, ray):
    ray.log = ["starting 'job'\n\x1f1> a\n", "\x1f1>", " b\n", "FINISHED"]

    outcome = raystream("submit", "--submission-id", "count-1", script())

    assert outcome.out == "1> a\n1> b\n"
    assert outcome.err == ("submitted job.py to http://head:8265 as 'count-1'\nstarting 'job'\nFINISHED\n")


def test_result_after_a_line_that_another_process_has_not_ended_is_still_a_result(raystream, script, ray):
    ray.log = ["progress: 3 of 7\x1f1> a\n", "\x1f1> b \x1f\n"]

    outcome = raystream("submit", "--submission-id", "count-1", script())

    assert outcome.out == "1> a\n1> b \x1f\n"
    assert outcome.err.endswith("\nprogress: 3 of 7\n")


def test_what_ray_writes_is_shown_when_the_command_did_not_begin(raystream, script, ray):
    ray.preamble = "Running entrypoint\nerror: raystream is not installed on the head of the cluster\n"
    ray.outcome = ended("FAILED", 2)

    outcome = raystream("submit", script())

    assert outcome.code == 2
    assert outcome.err.endswith("error: raystream is not installed on the head of the cluster\n")


def test_no_wait_prints_the_submission_and_nothing_else(raystream, script, ray):
    outcome = raystream("submit", "--no-wait", "--submission-id", "count-1", script())

    assert (outcome.code, outcome.out) == (0, "count-1\n")


@pytest.mark.parametrize(("end", "code"), [
    (ended("FAILED", 1), 1),
    (ended("FAILED", 2), 2),
    (ended("STOPPED"), 143),
])  # fmt: skip
def test_exit_code_is_that_of_the_job(raystream, script, ray, end, code):
    ray.outcome = end

    assert raystream("submit", script()).code == code


def test_driver_that_was_killed_is_told_from_a_job_that_has_failed(raystream, script, ray):
    ray.outcome = ended("FAILED", -9)

    outcome = raystream("submit", "--submission-id", "count-1", script())

    assert outcome.code == 137
    assert "the driver of 'count-1' was killed by signal 9; its stream job may go on" in outcome.err


def test_job_that_ray_could_not_start_is_an_error_with_what_ray_says(raystream, script, ray):
    ray.outcome = ended("FAILED", message="Failed to set up runtime environment.\nno such package: polaris")

    outcome = raystream("submit", script())

    assert outcome.code == 1
    assert "no such package: polaris" in outcome.err


def test_same_submission_again_is_followed_and_not_started_twice(raystream, script, ray):
    path = script()
    ray.jobs["count-1"] = RUNNING
    ray.log = ["\x1f1> a\n"]

    def end():
        ray.jobs["count-1"] = ended("SUCCEEDED", 0)

    ray.find = lambda submission_id, find=ray.find: (find(submission_id), end())[0]
    outcome = raystream("submit", "--submission-id", "count-1", path)

    assert (outcome.code, outcome.out, ray.submitted) == (0, "1> a\n", [])
    assert "nothing new is started" in outcome.err


def test_submission_that_has_failed_says_how_to_start_again(raystream, script, ray):
    ray.jobs["count-1"] = ended("FAILED", 1)

    outcome = raystream("submit", "--submission-id", "count-1", script())

    assert (outcome.code, ray.submitted) == (1, [])
    assert "another --submission-id starts the script again, with `-s latest`" in outcome.err


def test_interrupt_leaves_the_job_alone(raystream, script, ray):
    ray.log = ["starting 'job'\n", KeyboardInterrupt()]

    outcome = raystream("submit", "--submission-id", "count-1", script())

    assert (outcome.code, ray.stopped) == (130, [])
    assert "'count-1' goes on" in outcome.err


# ---- other commands from a machine that reaches the dashboard only ------------


def test_command_is_carried_out_on_the_head(raystream, ray):
    ray.log = ["\x1ffile:///savepoints/savepoint-1\n"]

    outcome = raystream(
        "stop", "--address", "http://head:8265/", "-D", "slot.cpus=2", "--drain", "-p", "s3://b/s", "hits",
    )  # fmt: skip

    assert (outcome.code, outcome.out) == (0, "file:///savepoints/savepoint-1\n"), outcome.err
    assert ray.asked_at == ["http://head:8265"]
    assert ray.command == "stop -D slot.cpus=2 --savepoint-dir=s3://b/s --drain -- hits"
    assert ray.jobs == {}


def test_address_of_the_environment_may_be_that_of_a_dashboard(raystream, ray, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "http://head:8265")
    ray.outcome = ended("FAILED", 3)

    assert raystream("cancel", "hits", "-s", "--type", "native").code == 3
    assert ray.command == "cancel --with-savepoint --type=native -- hits"


def test_interrupted_command_is_ended_on_the_head_too(raystream, ray):
    ray.log = ["\x1fslot-0 | a\n", KeyboardInterrupt()]

    outcome = raystream("logs", "--address", "http://head:8265", "-f", "hits")

    assert (outcome.code, outcome.out) == (130, "slot-0 | a\n")
    assert "interrupted" not in outcome.err
    assert len(ray.stopped) == 1


def test_interrupted_command_that_asks_a_job_for_something_says_that_it_was_asked(raystream, ray):
    ray.log = [KeyboardInterrupt()]

    assert (
        "the job may still do what it was asked for"
        in raystream("stop", "--address", "http://head:8265", "hits").err
    )


def test_timeout_has_its_unit_on_the_cluster_too(raystream, script, ray):
    raystream("submit", "--timeout", "1.5s", script())

    assert " --timeout=1500ms " in ray.command


def test_submission_of_which_the_cluster_knows_nothing_any_more_is_not_found(raystream, script, ray):
    ray.find = lambda submission_id: None

    assert raystream("submit", script()).code == 3


def test_cluster_that_is_not_there_is_an_error_of_one_line_and_one_hint(raystream, script, monkeypatch):
    def away(address):
        raise RaystreamError("no dashboard of a Ray cluster answers at the address", hint="check it")

    monkeypatch.setattr(ray_jobs, "RayJobs", away)

    assert raystream("submit", script()).error[1] == "hint: check it"
