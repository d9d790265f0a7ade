"""`raystream state check`: would this program take over this state?"""

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from raystream.api.ambient import Ambient, use
from raystream.api.runner import JobHandle, Submission
from raystream.cli.failures import DONE, WRONG_USAGE, error_lines, print_lines
from raystream.cli.listing import print_as_json
from raystream.cli.run import (
    SCRIPT_SETTINGS,
    allow_non_restored_option,
    config_option,
    define_option,
    execute_script,
    parallelism_option,
)
from raystream.clock import SystemClock
from raystream.errors import ConfigError, RaystreamError

if TYPE_CHECKING:
    from raystream.runtime.program import Program
    from raystream.runtime.restore_rehearsal import Rehearsal


@click.command("check", context_settings=SCRIPT_SETTINGS, short_help="Would a program restore?")
@config_option
@define_option
@parallelism_option
@allow_non_restored_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.argument("script", metavar="JOB.py", type=click.Path(path_type=Path))
@click.argument("snapshot", metavar="SNAPSHOT")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ARGS]...")
@click.pass_context
def check(
    context: click.Context,
    /,
    script: Path,
    snapshot: str,
    arguments: tuple[str, ...],
    **options: Any,
) -> None:
    """Tell what would become of each state of SNAPSHOT if JOB.py started from it; start nothing.

    The script is executed up to its first job. Its operators are opened once, without sources and sinks, on
    state that is empty; what open() of a function does besides registering state, it does. Exit code 2 when
    the restore would be refused.
    """
    as_json = options.pop("as_json")
    rehearsal = _rehearse(script, snapshot, arguments, options)
    if isinstance(rehearsal, int):
        context.exit(rehearsal)
    _print(rehearsal, as_json=as_json)
    context.exit(_judge(rehearsal, drop=options["allow_non_restored"]))


def _rehearse(
    script: Path, snapshot: str, arguments: Sequence[str], options: dict[str, Any]
) -> "Rehearsal | int":
    """Return what becomes of the states, or the exit code of a script that has no job."""
    from raystream.runtime.restore_rehearsal import rehearse_restore
    from raystream.savepoint.snapshot import SnapshotReader

    with SnapshotReader(snapshot) as reader, contextlib.redirect_stdout(sys.stderr):
        ambient = Ambient(**options, runner=_ProgramReader())
        with use(ambient):
            try:
                return execute_script(script, arguments, ambient)
            except _ProgramRead as read:
                return rehearse_restore(read.program, reader, clock=SystemClock())


def _print(rehearsal: "Rehearsal", *, as_json: bool) -> None:
    from raystream.runtime.restored_states import table

    if as_json:
        rows = [{**asdict(state), "verdict": state.verdict.value} for state in rehearsal.states]
        failures = [{"error": error.message, **_told(error)} for error in rehearsal.failures]
        print_as_json({"states": rows, "failures": failures})
    else:
        print(table(rehearsal.states))


def _told(error: RaystreamError) -> dict[str, str]:
    return {name: str(value) for name, value in error.context.items() if name != "traceback"}


def _judge(rehearsal: "Rehearsal", *, drop: bool) -> int:
    """Say why the restore would be refused, if it would; return the exit code."""
    from raystream.runtime.restored_states import refusal

    for failure in rehearsal.failures:
        print_lines(error_lines(failure))
    error = refusal(rehearsal.states, drop=drop)
    if error is not None:
        # The table is on standard output already.
        cause = error.message.splitlines()[0]
        print_lines(error_lines(type(error)(cause, hint=error.hint, **error.context)))
    return WRONG_USAGE if error is not None or rehearsal.failures else DONE


class _ProgramRead(BaseException):
    """Leaves the script with its first job; no `except Exception` there may catch it."""

    def __init__(self, program: "Program") -> None:
        super().__init__()
        self.program = program


class _ProgramReader:
    """Takes a job instead of a runner, packs it as a runner would, and leaves the script with it."""

    def submit(self, submission: Submission) -> JobHandle:
        from raystream.runtime.program import Program, pack, unpack

        program = Program(job_name=submission.name, plan=submission.plan, config=submission.config)
        raise _ProgramRead(unpack(pack(program)))

    def attach(self, job_id: str, *, address: str | None = None) -> NoReturn:
        raise ConfigError("a script that attaches to a running job has no program of its own", job_id=job_id)
