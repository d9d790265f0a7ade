"""What the API needs of the code that runs jobs: a runner, and a handle on each job.

This module knows neither Ray nor the runtime.  The package root binds the names "ray"
and "local" to the runners behind them (`raystream.api.bindings`); they are imported when
the first job is submitted, so that `import raystream` stays quick.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from raystream.config.options import JobConfig
from raystream.graph.physical import PhysicalPlan
from raystream.handles import SavepointFormat
from raystream.ids import JobId, JobStatus, OperatorUid


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A job as the client hands it to a runner."""

    job_id: JobId
    name: str
    plan: PhysicalPlan
    config: JobConfig
    detached: bool = False
    """The job outlives this process: `execute` returns when all slots run."""
    address: str | None = None
    """Address of the Ray cluster to attach to, None for the default one."""
    collects: bool = False
    """Records go to this process: those that it has not fetched are lost with the job master."""


@dataclass(frozen=True, slots=True)
class SavepointRequest:
    """Take a savepoint; its path is the outcome."""

    request_id: str
    """Makes a repeated request the same request."""
    directory: str | None
    """Where to, or None for the configured directory."""
    format: SavepointFormat = SavepointFormat.CANONICAL


@dataclass(frozen=True, slots=True)
class CheckpointRequest:
    """Take a checkpoint now; its path is the outcome."""

    request_id: str
    full: bool = False
    """Refer to no file of an older checkpoint."""


@dataclass(frozen=True, slots=True)
class StopRequest:
    """Take a savepoint, commit, and end the job as FINISHED; the savepoint's path is the outcome."""

    request_id: str
    directory: str | None
    format: SavepointFormat = SavepointFormat.CANONICAL
    drain: bool = False
    """The sources end first, so that all event-time timers fire."""


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """End the job as CANCELED without a savepoint; the outcome is empty."""

    request_id: str


@dataclass(frozen=True, slots=True)
class RescaleRequest:
    """Go on at another parallelism; the outcome is the time in ms in which the job processed nothing."""

    request_id: str
    parallelism: int


ClientRequest = SavepointRequest | CheckpointRequest | StopRequest | CancelRequest | RescaleRequest

OutputListener = Callable[[OperatorUid, list[str] | bytes], None]
"""Takes what a sink sends to the client: printed lines, or collected values as bytes."""


class JobView(Protocol):
    """What the job master says about a job at one moment."""

    @property
    def job_id(self) -> JobId: ...
    @property
    def name(self) -> str: ...
    @property
    def status(self) -> JobStatus: ...
    @property
    def restarts(self) -> int: ...
    @property
    def records_in(self) -> int: ...
    @property
    def records_out(self) -> int: ...
    @property
    def dead_letters(self) -> int: ...
    @property
    def duration_ms(self) -> int: ...
    @property
    def checkpoints(self) -> Sequence[Any]:
        """Return a record of each checkpoint and savepoint, oldest first."""

    @property
    def error(self) -> Exception | None:
        """Return why the job failed, or why its last attempt did; None when nothing did."""


class JobHandle(Protocol):
    """A submitted job, seen from a client; every call may block for the time of a network call."""

    @property
    def job_id(self) -> JobId: ...

    def view(self) -> JobView:
        """Return how the job stands now."""

    def metrics(self) -> Any:
        """Return what the slots have counted and measured, a `raystream.runtime.job_metrics.JobMetrics`."""

    def request(self, request: ClientRequest) -> str:
        """Have a request carried out, wait for its outcome and return it; idempotent by request id.

        A savepoint, checkpoint or stop waits until the job is RUNNING.

        Raises:
            CheckpointError: the savepoint was aborted; the message carries the reason.
            RaystreamError: the job ended before the request was carried out.
        """

    def wait(
        self, timeout_s: float | None, *, until: frozenset[JobStatus], listener: OutputListener | None
    ) -> JobView:
        """Wait until the job has one of these statuses, or has ended, and return the view.

        The listener is called in this thread with everything that sinks send meanwhile, in
        order, and has got everything before a view with a terminal status is returned.  Without
        one the output is left to other clients.

        Raises:
            TimeoutError: the time is over.
        """


class Runner(Protocol):
    """Runs jobs somewhere."""

    def submit(self, submission: Submission) -> JobHandle:
        """Start a job and return at once.

        Raises:
            ConfigError: the job cannot be shipped, or cannot start as configured.
            ClusterNotFoundError: there is no cluster at the address.
        """

    def attach(self, job_id: str, *, address: str | None = None) -> JobHandle:
        """Return a handle on a job that was submitted before, by this or another process.

        Raises:
            JobNotFoundError: this runner knows no such job.
        """
