"""Follows a Ray job from another machine: its results on standard output, the rest on standard error."""

import signal
from collections import deque
from collections.abc import Iterable, Iterator

from raystream.cli.attend import say
from raystream.cli.driver import BEGIN_MARK, OUTPUT_MARK
from raystream.cli.failures import NOT_FOUND, SIGNALLED
from raystream.cluster.ray_jobs import RayJobs
from raystream.errors import RaystreamError

LINES_BEFORE_MAX = 100
"""Of the lines that Ray writes before the driver begins, the last ones are kept."""


def follow(jobs: RayJobs, submission_id: str) -> int:
    """Show what a Ray job writes until its end; return the exit code of its command."""
    try:
        show(jobs.follow(submission_id))
    except KeyboardInterrupt:
        say(f"{submission_id!r} goes on; submitted again under the same --submission-id it is followed again")
        return SIGNALLED + signal.SIGINT
    return outcome(jobs, submission_id)


def show(pieces: Iterable[str]) -> None:
    """Print the lines of a driver's log where its command wrote them.

    What Ray writes before the driver has begun is shown only when it does not come to that.
    """
    before: deque[str] | None = deque(maxlen=LINES_BEFORE_MAX)
    for line in _lines(pieces):
        if line == BEGIN_MARK:
            before = None
        elif before is not None:
            before.append(line)
        else:
            # What another process has written without ending its line stands before the mark.
            text, mark, result = line.partition(OUTPUT_MARK)
            if text or not mark:
                say(text)
            if mark:
                print(result, flush=True)
    for line in before or ():
        say(line)


def outcome(jobs: RayJobs, submission_id: str) -> int:
    """Return the exit code of the command of a Ray job that has ended.

    Raises:
        RaystreamError: it was never started.
    """
    job = jobs.find(submission_id)
    if job is None:
        say(f"{submission_id!r} is not known to the cluster any more")
        return NOT_FOUND
    if job.exit_code is not None and job.exit_code < 0:
        number = -job.exit_code
        say(
            f"the driver of {submission_id!r} was killed by signal {number}; its stream job may go on, as"
            " `raystream list` shows"
        )
        return SIGNALLED + number
    if job.exit_code is not None:
        return job.exit_code
    if job.status == "STOPPED":
        say(f"{submission_id!r} was stopped; its stream job goes on, as `raystream list` shows")
        return SIGNALLED + signal.SIGTERM
    raise RaystreamError(
        f"Ray could not start the job\n{job.message.strip()}",
        hint="the message above is Ray's; under another --submission-id the job can be submitted again",
        submission_id=submission_id,
        status=job.status,
    )


def _lines(pieces: Iterable[str]) -> Iterator[str]:
    begun = ""
    for piece in pieces:
        *whole, begun = (begun + piece).split("\n")
        yield from whole
    if begun:
        yield begun
