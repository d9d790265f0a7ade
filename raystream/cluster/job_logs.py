"""The logs of one job, found by what its user calls it, until it has ended."""

import threading
from collections.abc import Iterator

from raystream.cluster.client import RayJobHandle, RayRunner
from raystream.cluster.connection import clusters
from raystream.cluster.node_logs import ClusterLogs, LogLine
from raystream.errors import JobNotFoundError, RaystreamError

POLL_S = 0.5
"""Time between two looks for new lines."""


def job_logs(wanted: str, *, address: str | None, follow: bool) -> Iterator[LogLine]:
    """Yield what the processes of a job have written, those included that have ended.

    Args:
        wanted: id of the job, a prefix of it or its name; of a job whose master has gone the id, or a prefix.
        address: of the cluster, as for every client.
        follow: go on until the job has ended.

    Raises:
        JobNotFoundError: no job is meant, or more than one.
        ClusterNotFoundError: there is no cluster.
    """
    handle = _running(wanted, address)
    job_id, logs = (handle.job_id, ClusterLogs()) if handle is not None else _left(wanted, address)
    pause = threading.Event()  # Never set.
    while True:
        ended = not follow or _has_ended(handle)  # Asked before the last look.
        yield from logs.read(job_id)
        if ended:
            return
        pause.wait(POLL_S)


def _running(wanted: str, address: str | None) -> RayJobHandle | None:
    """Return a handle of a job whose master answers, and connect with its cluster.

    Raises:
        JobNotFoundError: more than one job is meant.
    """
    try:
        return RayRunner().attach(wanted, address=address)
    except JobNotFoundError as error:
        if "jobs" in error.context:
            raise
        return None


def _left(wanted: str, address: str | None) -> tuple[str, ClusterLogs]:
    """Return the job that has this id, or id with this beginning, and left logs; connect with its cluster."""
    for _ in clusters(address):
        logs = ClusterLogs()
        found = sorted(job for job in logs.jobs() if job.startswith(wanted))
        if len(found) == 1:
            return found[0], logs
    raise JobNotFoundError(
        "no job of the cluster has this id, prefix or name",
        hint="`raystream list -a` shows all jobs; of one that ended some time ago give the id",
        job=wanted,
    )


def _has_ended(handle: RayJobHandle | None) -> bool:
    if handle is None:
        return True
    try:
        return handle.view().status.terminal
    except RaystreamError:
        return True  # The master has gone.
