"""What a Ray job of raystream runs on the cluster: a command of raystream, and somebody who watches over it.

    Ray's job supervisor --> driver (this module) --> raystream run JOB.py --> job master, slots

Ray has one log and one status for each of its jobs.  The driver makes both say what they should:

    log       a line of the command's standard output begins with `OUTPUT_MARK`, which terminals do not show,
              so that the machine which has submitted it can tell results from progress; a line with
              `BEGIN_MARK` is the first one
    status    that of the stream job.  A stream job outlives its client, so when the client is killed
              the driver puts another one in its place, which waits for the stream job and ends as it does
    stop      Ray sends SIGTERM to all of these: the client detaches, and the stream job goes on

`python -m raystream.cli.driver VERSIONS COMMAND...`; the versions are the submitting machine's, or `-` where
the command comes with the cluster's image, as in a RayJob of KubeRay.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import IO, cast

from raystream.api.client import TERMINAL, JobClient, print_lines, runner_named
from raystream.api.runner import JobHandle
from raystream.api.runner import JobView as RunnerView
from raystream.cli import failures
from raystream.cli.attend import JOB_IDS_VARIABLE, give_up, say
from raystream.cli.logs import configure_logging
from raystream.cluster.versions import check_client, parsed_versions
from raystream.errors import RaystreamError
from raystream.ids import JobStatus
from raystream.runtime.coordinator_view import JobView

BEGIN_MARK = "\x1e"
"""Line in the log of a Ray job that separates what Ray says before it from the command's own lines."""
OUTPUT_MARK = "\x1f"
"""Begins each line of standard output in the log of a Ray job."""

ATTEND = "attend"
"""The command that takes the place of a client that was killed; its arguments are the stream job and, if that
is limited, the time in ms that it has to begin to run."""
OUTPUT_PATIENCE_S = 5.0
"""Time for the last lines of a client that has ended; a process that it has left may hold them open."""
ATTENDANTS_MAX = 100
"""Clients that are put in the place of killed ones; whatever kills more than these means it."""


def main(arguments: Sequence[str]) -> int:
    """Run one command of raystream and return its exit code."""
    configure_logging()
    if arguments[0] == ATTEND:
        return _attend(arguments[1], *map(int, arguments[2:]))
    say(BEGIN_MARK)
    try:
        check_client(parsed_versions(arguments[0]))
    except RaystreamError as error:
        failures.print_lines(failures.error_lines(error))
        return failures.exit_code(error)
    with tempfile.TemporaryDirectory() as directory:
        return _Driver(Path(directory) / "jobs").run(arguments[1:])


class _Driver:
    """Runs a command, and clients in its place when it is killed.

    Args:
        jobs: file to which the command appends each stream job, before it starts it.
    """

    def __init__(self, jobs: Path) -> None:
        self._jobs = jobs
        self._stopped = False

    def run(self, command: Sequence[str]) -> int:
        """Return the exit code."""
        signal.signal(signal.SIGTERM, self._terminated)
        code = self._child("raystream.cli", *command)
        for _ in range(ATTENDANTS_MAX):
            jobs = self._jobs.read_text().splitlines() if self._jobs.exists() else []
            if code >= 0 or self._stopped or not jobs:
                break
            job = jobs[-1].split()
            name = signal.Signals(-code).name
            say(f"client was ended by {name}; waiting in its place for the end of job {job[0]}")
            code = self._child("raystream.cli.driver", ATTEND, *job)
        return code if code >= 0 else failures.SIGNALLED - code

    def _child(self, module: str, *arguments: str) -> int:
        """Run a module until its end; return its exit code, below 0 for a signal."""
        child = subprocess.Popen(  # noqa: S603 - what the user has submitted
            [sys.executable, "-m", module, *arguments],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": "1", JOB_IDS_VARIABLE: str(self._jobs)},
        )
        assert child.stdout is not None
        marker = threading.Thread(target=_mark, args=(child.stdout,), daemon=True)
        marker.start()
        code = child.wait()
        marker.join(OUTPUT_PATIENCE_S)
        return code

    def _terminated(self, number: int, frame: FrameType | None) -> None:
        self._stopped = True  # The child has got the signal too, and detaches.


def _mark(output: IO[bytes]) -> None:
    """Copy standard output, line by line, with the mark before each."""
    log = sys.stdout.buffer
    for line in output:
        log.write(OUTPUT_MARK.encode() + (line if line.endswith(b"\n") else line + b"\n"))
        log.flush()


def _attend(job_id: str, start_timeout_ms: int | None = None) -> int:
    """Wait for the end of a stream job, and return the exit code that its own client would have had.

    The time in which it has to begin to run begins anew; one that restarts may have run, and has any time.
    """
    try:
        job = runner_named("ray").attach(job_id)
        if start_timeout_ms is not None and _is_new(job.view()):
            _wait_for_start(job, start_timeout_ms)
        JobClient(job).wait_until(TERMINAL, None, print_lines)
    except RaystreamError as error:
        failures.print_lines(failures.error_lines(error))
        return failures.exit_code(error)
    return failures.DONE


def _wait_for_start(job: JobHandle, timeout_ms: int) -> None:
    try:
        JobClient(job).wait_until(frozenset({JobStatus.RUNNING}), timeout_ms / 1000, print_lines)
    except TimeoutError:
        view = job.view()
        if _is_new(view):
            give_up(job, view, timeout_ms)


def _is_new(view: RunnerView) -> bool:
    return view.status is JobStatus.CREATED and not cast(JobView, view).recovering


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
