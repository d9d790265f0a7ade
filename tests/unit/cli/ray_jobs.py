"""Ray's job API of a cluster that does what a test says."""

from dataclasses import dataclass, field
from typing import Any

from raystream.cluster.ray_jobs import RayJob

RUNNING = RayJob(status="RUNNING", ended=False, exit_code=None, message="")


def ended(status: str, exit_code: int | None = None, message: str = "") -> RayJob:
    """Return a Ray job that has ended."""
    return RayJob(status=status, ended=True, exit_code=exit_code, message=message)


@dataclass
class FakeRayJobs:
    """Stands for `RayJobs`; every submitted job ends as `outcome` with this log."""

    outcome: RayJob = field(default_factory=lambda: ended("SUCCEEDED", 0))
    log: list[str | BaseException] = field(default_factory=list)
    """What the command writes, in pieces."""
    preamble: str = "Running entrypoint\n\x1e\n"
    jobs: dict[str, RayJob] = field(default_factory=dict)
    submitted: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    """Entry point, submission id and runtime environment."""
    asked_at: list[str | None] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    address: str = "http://head:8265"

    def __call__(self, address: str | None) -> "FakeRayJobs":
        self.asked_at.append(address)
        return self

    @property
    def command(self) -> str:
        """The words after the client's versions of the only submission."""
        ((entrypoint, _, _),) = self.submitted
        return entrypoint.partition(" -m raystream.cli.driver ")[2].partition(" ")[2]

    def find(self, submission_id: str) -> RayJob | None:
        return self.jobs.get(submission_id)

    def submit(self, entrypoint: str, submission_id: str, *, runtime_env: dict[str, Any]) -> bool:
        if submission_id in self.jobs:
            return False
        self.submitted.append((entrypoint, submission_id, runtime_env))
        self.jobs[submission_id] = self.outcome
        return True

    def follow(self, submission_id: str):
        yield self.preamble
        for piece in self.log:
            if isinstance(piece, BaseException):
                raise piece
            yield piece

    def stop(self, submission_id: str) -> None:
        self.stopped.append(submission_id)

    def forget(self, submission_id: str) -> None:
        del self.jobs[submission_id]
