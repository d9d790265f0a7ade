"""Commands on jobs that run: `list`, `savepoint`, `stop`, `rescale`, `cancel`, `checkpoints`.

They ask the cluster; what jobs left in the checkpoint directory stands in for job masters that
are gone, when the configuration names the directory.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click

from raystream.api.ambient import Ambient
from raystream.api.client import JobClient, runner_named
from raystream.api.runner import JobHandle
from raystream.cli.attend import say
from raystream.cli.listing import (
    CheckpointRow,
    JobRow,
    matching_job,
    print_checkpoints,
    print_delays,
    print_jobs,
    print_json,
    shown_time,
)
from raystream.cli.progress import short_size, waits
from raystream.cli.retyped import retyped_configuration
from raystream.cli.run import address_option, config_option, define_option
from raystream.cli.stopping import await_end
from raystream.clock import SystemClock
from raystream.cluster.address import given_dashboard
from raystream.errors import ClusterNotFoundError, ConfigError
from raystream.handles import SavepointFormat
from raystream.runtime.coordinator_view import JobView
from raystream.storage.archive import ArchivedJob, read_archives
from raystream.storage.disposal import dispose_snapshot
from raystream.storage.stores import open_file_system, to_url

type_option = click.option(
    "--type", "savepoint_format", type=click.Choice([known.value for known in SavepointFormat]),
    default=SavepointFormat.CANONICAL.value, show_default=True,
    help="canonical: any state backend restores it; native: the backend's own files, quicker.",
)  # fmt: skip
SUBTASKS_SHOWN_MAX = 10
"""Of the newest checkpoint, when no other one is asked for."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def of_cluster(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say where jobs are, and pass it the `Jobs` there.

    Where only the cluster's dashboard is reached, the command is carried out on its head instead.
    """

    @functools.wraps(function)
    def command(
        *, address: str | None, config_file: str | None, definitions: dict[str, str], **options: Any
    ) -> None:
        if (dashboard := given_dashboard(address)) is not None:
            from raystream.cli.remote import run_on_head

            context = click.get_current_context()
            configuration = retyped_configuration(config_file, definitions)
            context.exit(run_on_head(context, dashboard, list(configuration)))
        config = Ambient(config_file=config_file, definitions=definitions).load(None, {})
        function(Jobs(address, config.checkpointing.directory), **options)

    return address_option(config_option(define_option(command)))


@dataclass(frozen=True)
class Jobs:
    """The jobs of a cluster, and those that have left an archive."""

    address: str | None
    directory: str | None
    """Where jobs keep their checkpoints, None if the configuration does not say."""

    def running(self) -> list[JobView]:
        """Return the jobs whose masters live, ended ones included.

        Raises:
            ClusterNotFoundError: no cluster answers.
        """
        from raystream.cluster.client import list_jobs

        return list_jobs(self.address)

    def known(self) -> list[JobView | ArchivedJob]:
        """Return all jobs, each once.

        Raises:
            ClusterNotFoundError: no cluster answers, and there is no directory to look in either.
        """
        archived: list[ArchivedJob] = []
        if self.directory is not None:
            archived = read_archives(open_file_system(to_url(self.directory)), self.directory)
        try:
            running = self.running()
        except ClusterNotFoundError:
            if self.directory is None:
                raise
            running = []
        alive = {view.job_id for view in running}
        return [*running, *(job for job in archived if job.job_id not in alive)]

    def client(self, wanted: str) -> JobClient:
        """Return a client of one job of the cluster; as `handle`."""
        return JobClient(self.handle(wanted))

    def handle(self, wanted: str) -> JobHandle:
        """Return a handle of one job of the cluster.

        Args:
            wanted: its id, a prefix of it that no other job has, or its name.

        Raises:
            JobNotFoundError: no job is meant, or more than one.
            ClusterNotFoundError: no cluster answers.
        """
        return runner_named("ray").attach(wanted, address=self.address)


@click.command("list", short_help="List the jobs of the cluster.")
@click.option("-a", "--all", "everything", is_flag=True, help="Jobs that have ended too.")
@json_option
@of_cluster
def list_jobs(jobs: Jobs, everything: bool, as_json: bool) -> None:
    """List the jobs that run; with -a also those that have ended.  What a job waits for is on standard error.

    With a configuration that names the checkpoint directory -a finds jobs that ended long ago.
    """
    known = jobs.known() if everything else jobs.running()
    rows = [JobRow.of(job) for job in known]
    shown = [row for row in rows if everything or not row.ended]
    if as_json:
        print_json(shown)
    elif shown:
        print_jobs(shown)
    else:
        say("no job runs; `raystream list -a` shows those that have ended" if not everything else "no jobs")
    for job in known:
        if isinstance(job, JobView) and job.waiting_for:
            say(f"{job.name!r} is {waits(job.waiting_for, job.waiting_ms)}")


@click.command("checkpoints", short_help="List the checkpoints of a job.")
@click.argument("job", metavar="JOB")
@click.option("--id", "checkpoint_id", type=int, metavar="N", help="Show this one, with all of its subtasks.")
@json_option
@of_cluster
def checkpoints(jobs: Jobs, job: str, checkpoint_id: int | None, as_json: bool) -> None:
    """List the latest checkpoints and savepoints of a job, oldest first, and what held the last one up.

    Of the newest one that is not pending its slowest subtasks are shown: the start delay until the first
    barrier arrived, the alignment until the last one had, the synchronous part in which no record was
    processed, and the asynchronous part until everything was stored.
    """
    known = jobs.known()
    wanted = matching_job([JobRow.of(one) for one in known], job).job_id
    rows = [CheckpointRow.of(record) for one in known if one.job_id == wanted for record in one.checkpoints]
    if checkpoint_id is not None:
        rows = [row for row in rows if row.checkpoint_id == checkpoint_id]
        if not rows:
            raise ConfigError(
                "checkpoint is not in the history of the job",
                hint=f"`raystream checkpoints {job}` shows those that are",
                checkpoint_id=checkpoint_id,
            )
    if as_json:
        print_json(rows)
    elif rows:
        print_checkpoints(rows)
        ended = [row for row in rows if row.status != "pending" or checkpoint_id is not None]
        for row in ended[-1:]:
            print_delays(row, len(row.subtasks) if checkpoint_id is not None else SUBTASKS_SHOWN_MAX)
    else:
        say("the job has taken no checkpoint")


@click.command("savepoint", short_help="Take a savepoint of a job, or delete one.")
@click.argument("job", metavar="[JOB]", required=False)
@click.argument("directory", metavar="[DIR]", required=False)
@type_option
@click.option("--dispose", "disposed", metavar="PATH", help="Delete the savepoint at PATH instead.")
@of_cluster
def savepoint(
    jobs: Jobs, job: str | None, directory: str | None, savepoint_format: str, disposed: str | None
) -> None:
    """Take a savepoint, while the job goes on, and print its path.

    DIR is by default the job's execution.checkpointing.savepoint-dir.  With --dispose PATH no job is asked:
    the files of a savepoint, or of a checkpoint that a job has left, are deleted.
    """
    if (job is None) == (disposed is None):
        raise click.UsageError("give either a JOB, or --dispose PATH")
    if disposed is not None:
        _dispose(disposed)
        return
    assert job is not None
    with _asked(jobs.client(job)) as client:
        print(client.savepoint(directory, savepoint_format))


@contextmanager
def _asked(client: JobClient) -> Iterator[JobClient]:
    """Ask a job for something; say at an interrupt that it has been asked."""
    try:
        yield client
    except KeyboardInterrupt:
        say(
            f"interrupted; job {client.job_id} may still do what it was asked for:"
            f" `raystream list` and `raystream checkpoints {client.job_id}` show it"
        )
        raise


def _dispose(path: str) -> None:
    directory, metadata = dispose_snapshot(path)
    say(
        f"disposed of {directory}: {metadata.kind.value} {metadata.checkpoint_id} of job"
        f" {metadata.job_name!r}, taken {shown_time(metadata.created_ms)}, {short_size(metadata.size_bytes)}"
    )


@click.command("checkpoint", short_help="Take a checkpoint of a job now.")
@click.argument("job", metavar="JOB")
@click.option("--full", is_flag=True, help="Refer to no file of an older checkpoint.")
@of_cluster
def checkpoint(jobs: Jobs, job: str, full: bool) -> None:
    """Take a checkpoint now, whatever the interval and the pause, and print its path.

    It is a checkpoint like any other: sinks commit with it, and newer ones take its place.
    """
    with _asked(jobs.client(job)) as client:
        path = client.checkpoint(full)
    if path:
        print(path)
    else:
        say("checkpoint is complete, in the memory of the job master")


@click.command("stop", short_help="End a job with a savepoint.")
@click.argument("job", metavar="JOB")
@click.option("-p", "--savepoint-dir", "directory", metavar="DIR", help="Where to put the savepoint.")
@click.option("--drain", is_flag=True, help="Let the sources end first: all event-time timers fire.")
@type_option
@of_cluster
def stop(jobs: Jobs, job: str, directory: str | None, drain: bool, savepoint_format: str) -> None:
    """End a job with a savepoint, and print the savepoint's path.

    The path is printed when the savepoint is complete.  The job ends, and the command with it, once
    everything before the savepoint is committed, whatever fails meanwhile; exit code 1 behind a path says
    that it may not be.  With --drain it is as if the sources had come to their end, so that every event-time
    timer fires: for a job that shall not go on from the savepoint.  When the savepoint fails the job goes on.
    """
    handle = jobs.handle(job)
    with _asked(JobClient(handle)) as client:
        path = client.stop(directory, drain, format=savepoint_format)
        print(path, flush=True)
        await_end(handle, path, SystemClock())


@click.command("rescale", short_help="Let a job go on at another parallelism.")
@click.argument("job", metavar="JOB")
@click.option("-p", "--parallelism", type=click.IntRange(min=1), required=True, metavar="N",
              help="Of every operator that was not given its own.")  # fmt: skip
@of_cluster
def rescale(jobs: Jobs, job: str, parallelism: int) -> None:
    """Let a job go on at another parallelism, and say how long it processed nothing.

    Further slots are started and a checkpoint is taken while the job runs; it then restarts from there.
    When there is no room for them within a minute, or the checkpoint fails, the job goes on as it was.
    """
    with _asked(jobs.client(job)) as client:
        say(f"job {client.job_id} gets parallelism {parallelism}; it waits up to a minute for room")
        downtime_ms = client.rescale(parallelism)
    say(f"job {client.job_id} has parallelism {parallelism}; downtime {downtime_ms / 1000:.2f} s")


@click.command("cancel", short_help="End a job at once.")
@click.argument("job", metavar="JOB")
@click.option(
    "-s", "--with-savepoint", "directory", metavar="[DIR]", is_flag=False, flag_value="",
    help="Take a savepoint first, and print its path.",
)  # fmt: skip
@type_option
@of_cluster
def cancel(jobs: Jobs, job: str, directory: str | None, savepoint_format: str) -> None:
    """End a job at once; its last checkpoint stays, unless it is configured otherwise.

    With -s it takes a savepoint before that, in DIR or in the job's execution.checkpointing.savepoint-dir;
    when that fails the job goes on.  What the job commits after the savepoint comes again when it is started
    from there: `raystream stop` leaves no such gap.
    """
    with _asked(jobs.client(job)) as client:
        if directory is not None:
            print(client.savepoint(directory or None, savepoint_format), flush=True)
        client.cancel()
    say(f"job {client.job_id} is cancelled; `raystream checkpoints {client.job_id}` shows what is left of it")
