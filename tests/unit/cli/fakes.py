"""A runner whose jobs do what the test says, for the command line around it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from raystream.api.runner import CancelRequest
from raystream.cli.listing import JobRow, matching_job
from raystream.ids import Attempt, CheckpointId, JobId, JobStatus, OperatorUid
from raystream.records.elements import SnapshotKind
from raystream.runtime.coordinator_view import CheckpointRecord, JobView

PRINT_SINK = OperatorUid("print")


JOB_ID = JobId("5eed" * 8)


def view(status: JobStatus = JobStatus.RUNNING, **shown: Any) -> JobView:
    """Return a view of a job; what is not said does not matter."""
    fields = {
        "job_id": JOB_ID,
        "name": "numbers",
        "parallelism": 1,
        "attempt": Attempt(1),
        "restarts": 0,
        "records_in": 0,
        "records_out": 0,
        "duration_ms": 2_000,
    }
    return JobView(status=status, **{**fields, **shown})


def checkpoint(number: int, status: str = "completed", **shown: Any) -> CheckpointRecord:
    """Return the record of a checkpoint."""
    fields = {
        "kind": SnapshotKind.CHECKPOINT,
        "purpose": "periodic",
        "attempt": Attempt(1),
        "triggered_ms": 1_760_000_000_000,
        "duration_ms": 84.0,
        "size_bytes": 2048,
        "uploaded_bytes": shown.get("size_bytes", 2048),
        "path": f"file:///checkpoints/5eed/chk-{number}" if status == "completed" else "",
    }
    return CheckpointRecord(checkpoint_id=CheckpointId(number), status=status, **{**fields, **shown})


CREATED = view(JobStatus.CREATED)
RUNNING = view()
FINISHED = view(JobStatus.FINISHED, records_in=10, records_out=9)
CANCELED = view(JobStatus.CANCELED)
FAILED = view(JobStatus.FAILED)

Step = JobView | list[str] | BaseException | Callable[[], object]
"""What happens next while somebody waits: a new view, printed lines, an exception, an action."""


@dataclass
class FakeJob:
    """A handle of a job that goes through its steps: one for each wait, or all when it waits for ever."""

    steps: list[Step]
    outlives_client: bool = False
    requests: list[Any] = field(default_factory=list)
    now: JobView = RUNNING

    @property
    def job_id(self) -> JobId:
        return self.now.job_id

    def view(self) -> JobView:
        return self.now

    def request(self, request: Any) -> str:
        self.requests.append(request)
        if isinstance(request, CancelRequest):
            self.steps.append(CANCELED)
        return ""

    def wait(self, timeout_s: float | None, *, until: Iterable[JobStatus], listener: Any) -> JobView:
        if self.now.status in until:
            return self.now
        match self.steps.pop(0):
            case JobView() as view:
                self.now = view
            case list() as lines:
                listener(PRINT_SINK, lines)
            case BaseException() as error:
                raise error
            case action:
                action()
        if self.now.status in until:
            return self.now
        if timeout_s is None:
            return self.wait(None, until=until, listener=listener)
        raise TimeoutError


class FakeRunner:
    """Starts the given jobs one after the other."""

    def __init__(self, *jobs: FakeJob) -> None:
        self._jobs = list(jobs)
        self.submissions: list[Any] = []

    def submit(self, submission: Any) -> FakeJob:
        self.submissions.append(submission)
        return self._jobs.pop(0)


HITS = view(
    job_id=JobId("ab" * 16), name="hits", parallelism=2, records_in=1_000, records_out=990, restarts=1,
    last_checkpoint_id=8, checkpoints=(checkpoint(7), checkpoint(8)),
)  # fmt: skip
WORDS = view(job_id=JobId("ac" * 16), name="words [de]")
OLD_HITS = view(JobStatus.FINISHED, job_id=JobId("ff" * 16), name="hits")


class FakeCluster:
    """A cluster with these jobs; requests are answered by what `answer` returns.

    Who waits for one of them sees it go through `steps`.
    """

    def __init__(self, *views):
        self.views = list(views)
        self.requests = []
        self.steps = [FINISHED]
        self.now = {}
        """How a job stands before that."""
        self.answer = lambda request: "file:///savepoints/savepoint-ababab-1"

    def attach(self, job_id, *, address=None):
        row = matching_job([JobRow.of(one) for one in self.views], job_id)
        job = FakeJob(list(self.steps), now=view(job_id=row.job_id, **self.now))
        job.request = self.request
        return job

    def request(self, request):
        self.requests.append(request)
        return self.answer(request)
