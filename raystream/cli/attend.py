"""Waits beside the jobs of a script: shows how far they are, passes signals on to them.

`raystream run` gives a script an `Attendant` instead of its runner.  The attendant passes
each job on to the runner that the configuration names, and every wait for the job's end
becomes a series of short waits with a look at the job in between.

    Ctrl-C      KeyboardInterrupt: whoever waits cancels the job and waits for its end
    again       KeyboardInterrupt out of that wait; a third one kills the process
    SIGTERM     of a job in this process or on an embedded cluster: like Ctrl-C
                of a job on another cluster: ends the wait, the job goes on
"""

import contextlib
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from raystream.api.client import TERMINAL, print_lines, runner_named
from raystream.api.runner import (
    CancelRequest,
    ClientRequest,
    JobHandle,
    JobView,
    OutputListener,
    Runner,
    Submission,
)
from raystream.cli.progress import Progress, completed, summary
from raystream.cli.terminal import StatusLine, status_line
from raystream.clock import Clock
from raystream.errors import ConfigError
from raystream.ids import JobId, JobStatus

POLL_S = 0.5
"""Time between two looks at a job."""


class Detached(BaseException):
    """Leaves a script whose job goes on without it."""


class Terminated(KeyboardInterrupt):
    """Like Ctrl-C, but it was SIGTERM."""


class Attendant:
    """The runner of a script under `raystream run`.

    Args:
        clock: for rates and deadlines.
        resume_command: the command that was typed, as `raystream run`, options and script,
            with a place for `-s PATH` after its first element.
    """

    def __init__(self, clock: Clock, resume_command: list[str]) -> None:
        self._clock = clock
        self._resume_command = resume_command
        self._attended: list[AttendedJob] = []

    def submit(self, submission: Submission) -> JobHandle:
        """Start a job and return a handle that shows progress while it waits; errors as of any runner."""
        name = submission.config.runner
        if submission.detached and name == "local":
            raise ConfigError(
                "a detached job needs processes that outlive this one, and the local runner has none",
                hint="use --runner ray, or leave --detached out",
            )
        say(f"starting {submission.name!r} ({name} runner, parallelism {submission.config.parallelism})")
        job = AttendedJob(runner_named(name).submit(submission), submission, self)
        self._attended.append(job)
        return job

    def attach(self, job_id: str, *, address: str | None = None) -> JobHandle:
        """Return a handle on a job of another process; nothing is shown of it."""
        return runner_named("ray").attach(job_id, address=address)
