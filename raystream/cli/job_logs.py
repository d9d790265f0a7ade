"""`raystream logs`: what the processes of a job have written."""

import click

from raystream.cli.jobs import Jobs, of_cluster


@click.command("logs", short_help="Show what the processes of a job have written.")
@click.argument("job", metavar="JOB")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@of_cluster
def logs(jobs: Jobs, job: str, follow: bool) -> None:
    """Print what the code of a job has printed and logged, and what raystream logs of it.

    Each line begins with the process: `master`, or `slot-N`, which runs one subtask of each operator of its
    group: of subtask N where there is one group; `raystream info` shows the slots of several.
    Processes that were lost are shown too, as long as their node is there.
    """
    from raystream.cluster.job_logs import job_logs

    for line in job_logs(job, address=jobs.address, follow=follow):
        print(f"{line.process} | {line.text}", flush=follow)
