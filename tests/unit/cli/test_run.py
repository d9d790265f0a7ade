"""`raystream run` executes a script as `__main__` and tells how its jobs end."""

import os
import signal

import pytest

from raystream.api.runner import CancelRequest
from raystream.errors import ConfigError, JobFailedError, StateRestoreError, UserCodeError
from raystream.ids import JobStatus
from tests.unit.cli.conftest import SCRIPT
from tests.unit.cli.fakes import CANCELED, CREATED, FINISHED, RUNNING, FakeJob, checkpoint, view

TWO_JOBS = SCRIPT + 'env.from_collection([2]).print()\nenv.execute("more")\n'
KEPT = checkpoint(7)


def failed(error):
    return view(JobStatus.FAILED, error=error)


# ---- the script -------------------------------------------------------------


def test_script_runs_as_main_with_its_own_arguments_and_directory(raystream, script, jobs_do):
    jobs_do(FakeJob([FINISHED]))
    path = script(
        "import sys, beside\nprint(__name__, __file__ == sys.argv[0], sys.argv[1:], beside.ANSWER)\n" + SCRIPT
    )
    script("ANSWER = 42\n", name="beside.py")

    outcome = raystream("run", path, "--out", "x", "-p", "7", "--help")

    assert outcome.out == "__main__ True ['--out', 'x', '-p', '7', '--help'] 42\n"
    assert outcome.code == 0


def test_options_reach_the_environment(raystream, script, jobs_do, tmp_path):
    config = tmp_path / "job.yaml"
    config.write_text("execution.buffer-timeout: 5ms\nslot.cpus: 3\n")
    runner = jobs_do(FakeJob([FINISHED]))

    raystream(
        "run", "-c", str(config), "-D", "slot.cpus=0.5", "-D", "heartbeat.interval=2s", "-p", "4",
        "-s", "latest", "-n", "--allow-older-checkpoint", "--claim-mode", "claim", "--runner", "local",
        "--address", "10.0.0.1:6379", script(),
    )  # fmt: skip

    (submission,) = runner.submissions
    config = submission.config
    assert (submission.name, submission.address, submission.detached) == ("numbers", "10.0.0.1:6379", False)
    assert (config.parallelism, config.runner, config.slot.cpus) == (4, "local", 0.5)
    assert (config.pipeline.buffer_timeout_ms, config.heartbeat.interval_ms) == (5, 2_000)
    assert config.recovery.path == "latest"
    assert config.recovery.allow_non_restored
    assert config.recovery.allow_older
    assert config.recovery.claim_mode == "claim"


@pytest.mark.parametrize(
    ("options", "cause", "advice"),
    [
        (("-c", "missing.yaml"), "configuration file does not exist", "give the path of a YAML file"),
        (("-D", "slot.cpu=1"), "no configuration key has this name", "did you mean slot.cpus?"),
        (("-D", "slot.cpus=x"), "slot.cpus: expected a number", "lists every key"),
        (("-s", "ftp://x/y"), "store is not supported", "use a directory or a URL of file://"),
    ],
)
def test_option_that_cannot_be_used_is_wrong_usage(raystream, script, options, cause, advice):
    outcome = raystream("run", *options, script())

    assert (outcome.code, outcome.out) == (2, "")
    error, hint = outcome.err.splitlines()
    assert error.startswith(f"error: {cause}")
    assert advice in hint


def test_option_may_need_what_only_the_script_says(raystream, script, jobs_do, tmp_path):
    runner = jobs_do(FakeJob([FINISHED]))
    config = f"StreamEnvironment({{'execution.checkpointing.dir': {str(tmp_path)!r}}})"
    path = script(SCRIPT.replace("StreamEnvironment()", config))

    assert raystream("run", "-D", "execution.checkpointing.storage=filesystem", path).code == 0
    assert runner.submissions[0].config.checkpointing.directory.endswith(str(tmp_path))


def test_two_jobs_of_a_script_run_one_after_the_other(raystream, script, jobs_do):
    first, second = FakeJob([RUNNING, FINISHED]), FakeJob([RUNNING, FINISHED])
    runner = jobs_do(first, second)

    assert raystream("run", script(TWO_JOBS)).code == 0
    assert [submission.name for submission in runner.submissions] == ["numbers", "more"]
    assert first.steps == second.steps == []


def test_script_without_a_job_is_wrong_usage(raystream, script):
    path = script("print('nothing to do')\n")

    outcome = raystream("run", path)

    assert outcome.code == 2
    assert outcome.error == [
        f"error: script ended without running a job (script={path!r})",
        "hint: call env.execute(name) after the last operation of the stream",
    ]


def test_script_that_leaves_on_its_own_accord_keeps_its_exit_code(raystream, script):
    assert raystream("run", script("import sys; sys.exit(7)")).code == 7
    assert raystream("run", script("import sys; sys.exit('so not')")).err == "so not\n"


def test_help_of_a_script_is_no_missing_job(raystream, script):
    outcome = raystream("run", script("import argparse; argparse.ArgumentParser().parse_args()"), "--help")

    assert (outcome.code, outcome.err) == (0, "")


def test_exception_of_a_script_is_shown_with_the_frames_of_the_script_only(raystream, script):
    path = script("def broken():\n    return 1 / 0\n\nbroken()\n")

    outcome = raystream("run", path)

    assert outcome.code == 1
    assert outcome.err.splitlines() == [
        "Traceback (most recent call last):",
        f'  File "{path}", line 4, in <module>',
        "    broken()",
        f'  File "{path}", line 2, in broken',
        "    return 1 / 0",
        "           ~~^~~",
        "ZeroDivisionError: division by zero",
        "error: job.py raised ZeroDivisionError: division by zero",
        "hint: the traceback above is of the script; it ran in this process and no job failed",
    ]


def test_syntax_error_of_a_script_is_shown_where_it_is(raystream, script):
    outcome = raystream("run", script("a = = 1\n"))

    assert outcome.code == 1
    assert "line 1\n    a = = 1\n        ^\nSyntaxError" in outcome.err
    assert outcome.error[0] == "error: job.py raised SyntaxError: invalid syntax (job.py, line 1)"


def test_jobs_that_the_script_does_not_wait_for_are_waited_for(raystream, script, jobs_do):
    job = FakeJob([RUNNING, FINISHED])
    jobs_do(job)

    assert raystream("run", script(SCRIPT.replace("execute", "submit"))).code == 0
    assert job.steps == []


# ---- how jobs end -----------------------------------------------------------


def test_printed_lines_go_to_standard_output_and_progress_does_not(raystream, script, jobs_do):
    jobs_do(FakeJob([RUNNING, ["0> 1", "0> 2"], FINISHED]))

    outcome = raystream("run", script())

    assert outcome.out == "0> 1\n0> 2\n"
    assert outcome.err.splitlines() == [
        "starting 'numbers': ray runner, parallelism 1, on a Ray cluster of its own",
        f"job {RUNNING.job_id} is RUNNING: numbers",
        f"job {RUNNING.job_id} is FINISHED: 10 records in, 9 out, 0 checkpoints, 0 restarts, 0:00:02",
    ]


def test_failed_job_shows_the_users_traceback_and_ends_with_1(raystream, script, jobs_do):
    error = UserCodeError(
        "user function raised",
        operator="parse",
        subtask=1,
        cause="ValueError: no number\nat all",
        traceback=(
            "Traceback (most recent call last):\n"
            '  File "/jobs/job.py", line 3, in parse\n'
            "    return int(line)\n"
            "ValueError: no number\n"
        ),
        record="'x'",
    )
    jobs_do(FakeJob([RUNNING, failed(error)]))

    outcome = raystream("run", script())

    assert outcome.code == 1
    *lines, cause, advice = outcome.err.splitlines()[3:]
    assert lines == [
        "Traceback (most recent call last):",
        '  File "/jobs/job.py", line 3, in parse',
        "    return int(line)",
        "ValueError: no number",
    ]
    assert cause == (
        "error: user function raised (operator='parse' subtask=1 cause='ValueError: no number\\nat all' "
        f"record=\"'x'\" job_id='{RUNNING.job_id}')"
    )
    assert advice == (
        "hint: the traceback above is of the job's own code: correct it, or handle the record there"
    )


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("input does not exist", hint="check the path"), 2),
        (StateRestoreError("snapshot does not exist", hint="check the path"), 2),
        (JobFailedError("too many checkpoints failed", hint="check the path"), 1),
    ],
)
def test_exit_code_says_whose_mistake_the_failure_of_the_job_was(raystream, script, jobs_do, error, code):
    jobs_do(FakeJob([failed(error)]))

    outcome = raystream("run", script())

    assert outcome.code == code
    assert outcome.error[0].startswith(f"error: {error.message} (")
    assert outcome.error[1] == "hint: check the path"


def test_table_of_a_mismatch_stands_between_cause_and_advice(raystream, script, jobs_do):
    error = StateRestoreError("snapshot does not fit:\nmissing  count-hits\nnew      count", hint="use -n")
    jobs_do(FakeJob([failed(error)]))

    assert raystream("run", script()).err.splitlines()[-4:] == [
        f"error: snapshot does not fit (job_id='{RUNNING.job_id}')",
        "missing  count-hits",
        "new      count",
        "hint: use -n",
    ]


# ---- detached ---------------------------------------------------------------


def test_detached_prints_the_job_id_when_all_slots_run(raystream, script, jobs_do):
    runner = jobs_do(FakeJob([["0> early"], RUNNING], now=CREATED, outlives_client=True))

    outcome = raystream("run", "-d", script())

    assert (outcome.code, outcome.out) == (0, f"{RUNNING.job_id}\n")
    assert runner.submissions[0].detached


def test_detached_prints_the_id_of_a_job_that_was_only_submitted(raystream, script, jobs_do):
    jobs_do(FakeJob([RUNNING], now=CREATED))

    assert raystream("run", "-d", script(SCRIPT.replace("execute", "submit"))).out == f"{RUNNING.job_id}\n"


def test_detached_needs_a_cluster(raystream, script, jobs_do):
    jobs_do()

    outcome = raystream("run", "-d", "--runner", "local", script())

    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.error == [
        "error: a detached job needs processes that outlive this one, and the local runner has none",
        "hint: use --runner ray, or leave --detached out",
    ]


def test_detached_job_that_fails_at_once_prints_no_id(raystream, script, jobs_do):
    jobs_do(FakeJob([failed(ConfigError("input does not exist"))], now=CREATED))

    outcome = raystream("run", "-d", script())

    assert (outcome.code, outcome.out) == (2, "")


# ---- signals ----------------------------------------------------------------


def interrupt(number):
    return lambda: os.kill(os.getpid(), number)


def test_ctrl_c_cancels_the_job_and_says_how_to_resume_it(raystream, script, jobs_do, tmp_path):
    stored = view(checkpoints=(KEPT,))
    job = FakeJob([stored, interrupt(signal.SIGINT)])
    job.request = lambda request: (
        job.requests.append(request) or job.steps.append(view(JobStatus.CANCELED, checkpoints=(KEPT,)))
    )
    jobs_do(job)
    path = script()

    outcome = raystream("run", "-p", "2", "-s", "old", "-D", f"state.checkpoints.dir={tmp_path}", path, "a b")

    assert outcome.code == 130
    assert [type(request) for request in job.requests] == [CancelRequest]
    kept, resume = outcome.err.splitlines()[-2:]
    assert kept == "checkpoint 7 is kept: file:///checkpoints/5eed/chk-7"
    assert resume == (
        "resume with: raystream run -s file:///checkpoints/5eed/chk-7 -p 2 "
        f"-D state.checkpoints.dir={tmp_path} {path} 'a b'"
    )


def test_second_ctrl_c_leaves_without_waiting(raystream, script, jobs_do):
    job = FakeJob([interrupt(signal.SIGINT)])
    job.request = lambda request: job.requests.append(request) or job.steps.append(KeyboardInterrupt())
    jobs_do(job)

    outcome = raystream("run", script())

    assert outcome.code == 130
    assert len(job.requests) == 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ((), "they were in memory"),
        (("-D", "state.checkpoints.dir=/x"), "none was complete"),
        (
            ("-D", "state.checkpoints.dir=/x", "-D",
             "execution.checkpointing.externalized-checkpoint-retention=delete-on-cancellation"),
            "they are deleted on cancellation",
        ),
    ],
)  # fmt: skip
def test_ctrl_c_says_why_no_checkpoint_is_left(raystream, script, jobs_do, options, reason):
    jobs_do(FakeJob([interrupt(signal.SIGINT)]))

    assert f"no checkpoint is left: {reason}" in raystream("run", *options, script()).err.splitlines()[-1]


def test_sigterm_cancels_a_job_that_ends_with_this_process(raystream, script, jobs_do):
    job = FakeJob([interrupt(signal.SIGTERM)])
    jobs_do(job)

    assert raystream("run", script()).code == 143
    assert [type(request) for request in job.requests] == [CancelRequest]


def test_sigterm_detaches_from_a_job_on_another_cluster(raystream, script, jobs_do):
    job = FakeJob([interrupt(signal.SIGTERM)], outlives_client=True)
    jobs_do(job)

    outcome = raystream("run", script())

    assert (outcome.code, outcome.out, job.requests) == (143, "", [])
    assert outcome.err.splitlines()[-1].startswith(f"job {RUNNING.job_id} goes on")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_while_a_job_is_submitted_leaves_the_submission_and_says_that_no_job_is_left(
    raystream, script, jobs_do, number, code
):
    runner = jobs_do()
    runner.submit = lambda submission: interrupt(number)()

    outcome = raystream("run", script())

    assert outcome.code == code
    assert outcome.err.splitlines() == [
        "starting 'numbers': ray runner, parallelism 1, on a Ray cluster of its own",
        "'numbers' was interrupted before it had started; nothing of it goes on",
    ]


def test_ctrl_c_cancels_a_job_that_the_script_did_not_wait_for(raystream, script, jobs_do):
    job = FakeJob([interrupt(signal.SIGINT)])
    jobs_do(job)

    outcome = raystream("run", script(SCRIPT.replace("execute", "submit")))

    assert outcome.code == 130
    assert [type(request) for request in job.requests] == [CancelRequest]
    assert job.now is CANCELED


def test_handlers_of_signals_are_put_back(raystream, script, jobs_do):
    before = signal.getsignal(signal.SIGTERM)
    jobs_do(FakeJob([FINISHED]))
    raystream("run", script())

    assert signal.getsignal(signal.SIGTERM) is before


# ---- the plan ---------------------------------------------------------------


def test_info_prints_the_plan_and_runs_nothing(raystream, script, jobs_do):
    runner = jobs_do()
    path = script(TWO_JOBS.replace('env.execute("numbers")', 'env.execute("numbers")\nprint("not reached")'))

    outcome = raystream("info", "-p", "3", path)

    assert outcome.code == 0
    assert outcome.out.startswith("numbers: ")
    assert "collection" in outcome.out
    assert "not reached" not in outcome.out
    assert runner.submissions == []


def test_info_of_a_script_without_a_job_is_wrong_usage(raystream, script):
    assert raystream("info", script("pass\n")).code == 2
