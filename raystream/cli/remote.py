"""Commands on the jobs of a cluster that this machine reaches over HTTP alone.

Only machines of a Ray cluster can be its clients.  From any other one a command is typed again on the head:
as a Ray job, whose output and exit code are this command's own, and whose record is
deleted afterwards.
"""

import secrets
import signal
from collections.abc import Collection

import click

from raystream.cli.attend import say
from raystream.cli.failures import SIGNALLED
from raystream.cli.following import outcome, show
from raystream.cli.retyped import retyped_arguments, retyped_options
from raystream.cli.submit import driver_command
from raystream.cluster import ray_jobs

_WRITTEN_ANEW = ("address", "config_file", "definitions")
_ASKING = ("savepoint", "checkpoint", "stop", "rescale", "cancel")


def run_on_head(context: click.Context, dashboard: str, configuration: Collection[str]) -> int:
    """Run the command of a context on the head of a cluster; return its exit code.

    Args:
        context: of the command that was typed.
        dashboard: URL of the cluster's dashboard.
        configuration: the options that stand for the configuration here, written so that they do there.
    """
    assert context.info_name is not None
    kept = [one for one in context.command.params if one.name not in _WRITTEN_ANEW]
    options = retyped_options(context, kept)
    words = [context.info_name, *configuration, *options, "--", *retyped_arguments(context)]
    jobs, submission_id = ray_jobs.RayJobs(dashboard), f"raystream-command-{secrets.token_hex(6)}"
    jobs.submit(driver_command(words), submission_id, runtime_env={})
    try:
        show(jobs.follow(submission_id))
        return outcome(jobs, submission_id)
    except KeyboardInterrupt:
        jobs.stop(submission_id)
        if context.info_name in _ASKING:
            say("interrupted; the job may still do what it was asked for, as `raystream list` shows")
        return SIGNALLED + signal.SIGINT
    finally:
        jobs.forget(submission_id)
