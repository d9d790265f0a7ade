"""The command `raystream`: its parts, and how each of them ends."""

import contextlib
import signal
import sys
import textwrap
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import click

from raystream.cli.failures import (
    DONE,
    JOB_FAILED,
    SIGNALLED,
    WRONG_USAGE,
    error_lines,
    exit_code,
    print_lines,
    usage_lines,
)
from raystream.cli.job_logs import logs
from raystream.cli.jobs import cancel, checkpoint, checkpoints, list_jobs, rescale, savepoint, stop
from raystream.cli.logs import configure_logging
from raystream.cli.run import info, run
from raystream.cli.state import state
from raystream.cli.submit import submit
from raystream.cli.top import top
from raystream.errors import RaystreamError

TEXT_COLUMNS = 100


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code.

    Args:
        arguments: what stands after `raystream`; by default what was typed.
    """
    configure_logging()
    try:
        code = commands.main(args=arguments, prog_name="raystream", standalone_mode=False)
        sys.stdout.flush()
    except click.UsageError as error:
        asked = error.ctx.command_path if error.ctx else "raystream"
        print_lines(usage_lines(error.format_message(), f"`{asked} --help` shows what it takes"))
        return WRONG_USAGE
    except RaystreamError as error:
        print_lines(error_lines(error))
        return exit_code(error)
    except (KeyboardInterrupt, click.Abort):
        return SIGNALLED + signal.SIGINT
    except BrokenPipeError:  # Whoever reads our output has seen enough.
        with contextlib.suppress(OSError):
            sys.stdout.close()
        return JOB_FAILED
    return code if isinstance(code, int) else DONE


def _show_version(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:  # noqa: ARG001
    if wanted:
        try:
            number = version("raystream")
        except PackageNotFoundError:
            number = "(not installed)"
        print(f"raystream {number}")
        context.exit()


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version,
    help="Show the version.",
)  # fmt: skip
@click.pass_context
def commands(context: click.Context) -> None:
    """Stateful stream jobs in Python on a Ray cluster, exactly once."""
    if context.invoked_subcommand is None:
        print(context.get_help(), file=sys.stderr)
        context.exit(WRONG_USAGE)


@click.command("config", short_help="Explain every configuration key.")
def config() -> None:
    """List every configuration key with its type, default and meaning."""
    from raystream.config.describe import describe_options

    for option in describe_options():
        print(option.key)
        print(f"    {option.type}, default {option.default}")
        print(textwrap.fill(option.meaning, TEXT_COLUMNS, initial_indent="    ", subsequent_indent="    "))
        if option.aliases:
            print(f"    also written {', '.join(option.aliases)}")
        print()


_JOBS = (run, submit, list_jobs, logs, info, savepoint, checkpoint, checkpoints, stop, rescale, cancel, top)
for command in (*_JOBS, state, config):
    commands.add_command(command)
