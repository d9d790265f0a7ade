"""A runner that runs nothing: it keeps submissions and answers as it is told."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from raystream.api.runner import Submission
from raystream.ids import JobId, JobStatus


@dataclass
class FakeView:
    job_id: JobId
    name: str = "job"
    status: JobStatus = JobStatus.FINISHED
    restarts: int = 0
    records_in: int = 3
    records_out: int = 2
    dead_letters: int = 0
    duration_ms: int = 10
    checkpoints: tuple[Any, ...] = ()
    error: Exception | None = None


@dataclass
class FakeHandle:
    job_id: JobId
    view_now: FakeView
    messages: list[tuple[str, Any]] = field(default_factory=list)
    requests: list[Any] = field(default_factory=list)
    waits: list[tuple[float | None, frozenset[JobStatus]]] = field(default_factory=list)
    interrupts: int = 0

    def view(self) -> FakeView:
        return self.view_now

    def request(self, request: Any) -> str:
        self.requests.append(request)
        return "/savepoints/savepoint-abc"

    def wait(self, timeout_s: float | None, *, until: frozenset[JobStatus], listener: Any) -> FakeView:
        self.waits.append((timeout_s, until))
        if self.interrupts:
            self.interrupts -= 1
            raise KeyboardInterrupt
        while self.messages:
            listener(*self.messages.pop(0))
        return self.view_now


@dataclass
class FakeRunner:
    """Gives each job a handle; `prepare` holds what the next view shall say."""

    prepare: dict[str, Any] = field(default_factory=dict)
    messages: list[tuple[str, Any]] = field(default_factory=list)
    interrupts: int = 0
    submissions: list[Submission] = field(default_factory=list)
    handles: list[FakeHandle] = field(default_factory=list)

    def submit(self, submission: Submission) -> FakeHandle:
        self.submissions.append(submission)
        view = dataclasses.replace(FakeView(submission.job_id, submission.name), **self.prepare)
        handle = FakeHandle(submission.job_id, view, self.messages, interrupts=self.interrupts)
        self.handles.append(handle)
        return handle

    def attach(self, job_id: str, *, address: str | None = None) -> FakeHandle:
        return next(handle for handle in self.handles if handle.job_id == job_id)


class FakeSource:
    """Looks like a source; no test opens it."""

    def __init__(self, *, bounded: bool = True, rewindable: bool = True) -> None:
        self.bounded = bounded
        self.rewindable = rewindable

    def enumerator(self, context: Any, state: bytes | None) -> Any:
        raise AssertionError

    def open_reader(self, context: Any) -> Any:
        raise AssertionError


class FakeSink:
    """Looks like a sink; no test opens it."""

    def open_writer(self, context: Any) -> Any:
        raise AssertionError

    def open_committer(self, context: Any) -> None:
        return None
