"""`raystream run` and `raystream info`: a script, executed with the options of the command line."""

import functools
import shlex
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from raystream.api.ambient import Ambient, use
from raystream.api.explain import explain_plan
from raystream.api.runner import JobHandle, Submission
from raystream.cli.attend import Attendant, Detached, say
from raystream.cli.duration import Duration
from raystream.cli.failures import DONE, JOB_FAILED, SIGNALLED, print_lines, script_error_lines
from raystream.cli.script import run_script
from raystream.clock import SystemClock
from raystream.errors import ConfigError, RaystreamError

SCRIPT_SETTINGS = {"ignore_unknown_options": False, "allow_interspersed_args": False}
"""Options stand before JOB.py; what comes after it belongs to the job."""


def definition(context: click.Context, parameter: click.Parameter, pairs: Iterable[str]) -> dict[str, str]:
    """Return the `-D` options as a dict; the last one of a key counts.

    Raises:
        BadParameter: an option without `=`.
    """
    definitions = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise click.BadParameter(f"{pair!r} is not KEY=VALUE", context, parameter)
        definitions[key.strip()] = value.strip()
    return definitions


config_option = click.option("-c", "--config", "config_file", metavar="FILE", help="YAML configuration file.")
define_option = click.option(
    "-D", "definitions", metavar="KEY=VALUE", multiple=True, callback=definition,
    help="Set a configuration key; wins over the file.",
)  # fmt: skip
address_option = click.option(
    "--address", metavar="ADDRESS",
    help="Ray cluster to use; by default RAY_ADDRESS, else the one on this machine.",
)  # fmt: skip
parallelism_option = click.option(
    "-p", "--parallelism", type=click.IntRange(min=1), metavar="N",
    help="Subtasks of every operator that does not set its own number.",
)  # fmt: skip

allow_non_restored_option = click.option(
    "-n", "--allow-non-restored-state", "allow_non_restored", is_flag=True,
    help="Start even if the snapshot has state that the program no longer has, and drop that.",
)  # fmt: skip


@click.command("run", context_settings=SCRIPT_SETTINGS, short_help="Run the jobs of a script.")
@config_option
@define_option
@parallelism_option
@click.option(
    "-s", "restore_path", metavar="PATH|latest",
    help="Start from a savepoint or checkpoint; `latest`: the newest of this job name, if there is one.",
)  # fmt: skip
@click.option(
    "--claim-mode", type=click.Choice(["no-claim", "claim"]),
    help="What becomes of the snapshot of -s: it is left alone, or it is the job's and deleted in the end.",
)  # fmt: skip
@allow_non_restored_option
@click.option(
    "--allow-older-checkpoint", "allow_older", is_flag=True,
    help="Let `-s latest` and every recovery of the job pass over a damaged snapshot, or job log;"
    " what was committed since the older one comes twice.",
)  # fmt: skip
@click.option("-d", "--detached", is_flag=True, help="Return when the job runs; prints its id.")
@click.option(
    "--timeout", "start_timeout_ms", metavar="TIME", type=Duration(),
    help="Give a job up that does not run after this time, such as 5min: cancel it and fail.",
)  # fmt: skip
@click.option("--runner", "runner_name", type=click.Choice(["ray", "local"]), help="Where to run.")
@click.option(
    "--address", metavar="ADDRESS",
    help="Ray cluster to use, `auto` for the one on this machine; by default RAY_ADDRESS, else one that is"
    " started for the time of the job, or with -d the one on this machine.",
)  # fmt: skip
@click.argument("script", metavar="JOB.py", type=click.Path(path_type=Path))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ARGS]...")
@click.pass_context
def run(
    context: click.Context,
    /,
    script: Path,
    arguments: tuple[str, ...],
    start_timeout_ms: int | None,
    **options: Any,
) -> None:
    """Run JOB.py; what stands after it are its own arguments.

    The first Ctrl-C cancels the job and shows how to resume it, the second leaves at once.
    """
    ambient = Ambient(**options)
    command = functools.partial(_resume_command, script=script, arguments=arguments, options=options)
    with Attendant(SystemClock(), command, start_timeout_ms) as attendant:
        ambient.runner = attendant
        with use(ambient):
            context.exit(_attend(attendant, ambient, script, arguments))


@click.command("info", context_settings=SCRIPT_SETTINGS, short_help="Show the plan of a script's job.")
@config_option
@define_option
@parallelism_option
@click.argument("script", metavar="JOB.py", type=click.Path(path_type=Path))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ARGS]...")
@click.pass_context
def info(context: click.Context, /, script: Path, arguments: tuple[str, ...], **options: Any) -> None:
    """Print the plan of JOB.py without running it.

    The script is executed up to its first job.
    """
    ambient = Ambient(**options, runner=_PlanReader())
    with use(ambient):
        try:
            code = execute_script(script, arguments, ambient)
        except _PlanRead as read:
            print(read.plan)
            code = DONE
    context.exit(code)


class _PlanRead(BaseException):
    """Leaves the script with the plan of its first job; no `except Exception` there may catch it."""

    def __init__(self, plan: str) -> None:
        super().__init__()
        self.plan = plan


class _PlanReader:
    """Takes a job instead of a runner and leaves the script with its plan."""

    def submit(self, submission: Submission) -> JobHandle:
        explained = explain_plan(submission.plan, slot_cpus=submission.config.slot.cpus)
        raise _PlanRead(f"{submission.name}: {explained}")

    def attach(self, job_id: str, *, address: str | None = None) -> JobHandle:
        raise ConfigError("a script that attaches to a running job has no plan of its own", job_id=job_id)


def _attend(attendant: Attendant, ambient: Ambient, script: Path, arguments: Sequence[str]) -> int:
    """Run the script and wait for its jobs; return the exit code."""
    try:
        code = execute_script(script, arguments, ambient)
        if code == DONE:
            attendant.wait_for_rest()
    except Detached:
        for job_id in ambient.submitted:
            say(f"job {job_id} goes on; `raystream list` shows it, `raystream cancel` ends it")
        return SIGNALLED + signal.SIGTERM
    except KeyboardInterrupt:
        attendant.cancel_rest()
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Whatever still runs must not delay another Ctrl-C.
        return SIGNALLED + (signal.SIGTERM if attendant.terminated else signal.SIGINT)
    return code


def execute_script(script: Path, arguments: Sequence[str], ambient: Ambient) -> int:
    """Run the script; return its exit code.

    Raises:
        RaystreamError: to be shown as cause and advice; also when the script ran no job.
    """
    try:
        run_script(script, arguments)
    except RaystreamError:
        raise
    except SystemExit as left:
        if left.code is not None and not isinstance(left.code, int):
            print(left.code, file=sys.stderr)
            return JOB_FAILED
        return left.code or DONE
    except Exception as error:
        print_lines(script_error_lines(error, script.absolute()))
        return JOB_FAILED
    if not ambient.submitted:
        raise ConfigError(
            "script ended without running a job",
            hint="call env.execute(name) after the last operation of the stream",
            script=str(script),
        )
    return DONE


def _resume_command(path: str, *, script: Path, arguments: Sequence[str], options: dict[str, Any]) -> str:
    """Return the command line that goes on from a snapshot, with the options of this one."""
    command = ["raystream", "run", "-s", path, *_typed(options), str(script), *arguments]
    return shlex.join(command)


def _typed(options: dict[str, Any]) -> Iterator[str]:
    for flag, name in (("-c", "config_file"), ("-p", "parallelism"), ("--runner", "runner_name")):
        if options[name] is not None:
            yield from (flag, str(options[name]))
    for key, value in options["definitions"].items():
        yield from ("-D", f"{key}={value}")
    if options["address"] is not None:
        yield from ("--address", options["address"])
