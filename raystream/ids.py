"""Names of the things that a job consists of, as types."""

import enum
import os
from typing import NewType

JobId = NewType("JobId", str)
"""32 lower-case hex digits, drawn at random when a job is submitted."""

OperatorUid = NewType("OperatorUid", str)
"""Name of an operator that is stable across versions of a program."""

VertexId = NewType("VertexId", int)
"""Position of a chain of operators in the physical plan, 0-based."""

SlotId = NewType("SlotId", int)
"""Position of a slot in the job, 0-based; each slot is one process."""

ChannelId = NewType("ChannelId", int)
"""Number of one (edge, sending subtask, receiving subtask), unique in a plan."""

Attempt = NewType("Attempt", int)
"""Number of one execution of the whole job, from 1; never reused."""

CheckpointId = NewType("CheckpointId", int)
"""Number of a checkpoint or savepoint of one job, from 1; never reused."""


def draw_job_id() -> JobId:
    """Return a new random job id."""
    return JobId(os.urandom(16).hex())


class JobStatus(enum.Enum):
    """Where a job stands, as users see it."""

    CREATED = "CREATED"
    RUNNING = "RUNNING"
    RESTARTING = "RESTARTING"
    FAILING = "FAILING"
    FAILED = "FAILED"
    CANCELLING = "CANCELLING"
    CANCELED = "CANCELED"
    FINISHED = "FINISHED"

    @property
    def terminal(self) -> bool:
        """True when the job will never run again."""
        return self in (JobStatus.FAILED, JobStatus.CANCELED, JobStatus.FINISHED)
