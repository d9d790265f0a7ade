"""Executes what the rescale machine decides, and gives a job its new shape.

Holds no decisions.  What plan a parallelism means is found out before anything is asked for, so that a
parallelism that the job cannot have changes nothing.
"""

import logging
from collections.abc import Callable, Iterable
from typing import assert_never

from raystream.api.runner import RescaleRequest
from raystream.errors import RaystreamError
from raystream.ids import JobStatus, SlotId
from raystream.protocol import job_commands as job_cmd
from raystream.protocol import rescale as cmd
from raystream.protocol.checkpoint import CheckpointCoordinator
from raystream.protocol.checkpoint_commands import Command as CheckpointCommand
from raystream.protocol.checkpoint_commands import ResolveSavepoint
from raystream.protocol.client_requests import ClientRequests, RequestOutcome
from raystream.protocol.job import Job
from raystream.runtime.coordinator_attempt import AttemptPreparation
from raystream.runtime.coordinator_machines import shape_of
from raystream.runtime.coordinator_services import CoordinatorServices

logger = logging.getLogger(__name__)

Run = Callable[[Iterable[job_cmd.Command | CheckpointCommand | cmd.Command]], None]
"""Executes commands, behind those that wait already."""


class RescaleShell:
    """Executes the commands of the rescale machine.

    Args:
        services: the coordinator's world.
        job: the job machine, which gets the shape.
        checkpoints: take the checkpoint.
        requests: gets the answers to clients.
        preparation: makes plans, and prepares attempts by them.
        run: executes the commands that an event leads to.
    """

    def __init__(
        self,
        services: CoordinatorServices,
        job: Job,
        checkpoints: CheckpointCoordinator,
        requests: ClientRequests,
        preparation: AttemptPreparation,
        *,
        run: Run,
    ) -> None:
        self._services = services
        self._job = job
        self._checkpoints = checkpoints
        self._requests = requests
        self._preparation = preparation
        self._run = run
        submission = services.submission
        self._shape = shape_of(submission.plan, submission.config.parallelism)
        self._machine = cmd.Rescale(self._shape)
        self.parallelism: int | None = None
        """Of the job since it was rescaled; None before that."""

    @property
    def waiting_for(self) -> str:
        """What holds a rescale up, for people."""
        return self._machine.waiting_for

    @property
    def next_deadline_ms(self) -> float | None:
        """When `time_passed` has something to do."""
        return self._machine.next_deadline_ms

    def validate(self) -> None:
        """Assert every invariant of the machine."""
        self._machine.validate()

    # ---- events ----------------------------------------------------------------

    def recovered(self, parallelism: int) -> None:
        """The job was rescaled under a job master that is gone."""
        shape = shape_of(self._preparation.plan_at(parallelism, trusted=True), parallelism)
        self._machine = cmd.Rescale(shape)
        self._run(self._job.rescale_ready(self._now_ms, cmd.RestartRescaled(shape, ())))

    def requested(self, request: RescaleRequest) -> None:
        """A client wants another parallelism."""
        try:
            shape = shape_of(self._preparation.plan_at(request.parallelism), request.parallelism)
        except RaystreamError as error:
            self._requests.request_resolved(RequestOutcome(request_id=request.request_id, error=error))
            self._run([])
            return
        self._run(self._machine.rescale_requested(self._now_ms, request.request_id, shape))

    def slots_leave(self, slots: tuple[SlotId, ...]) -> None:
        """The nodes of some slots are about to go."""
        self._run(self._machine.slots_leave(slots))

    def slot_acquired(self, slot: SlotId) -> bool:
        """Take in that a process is there; False when it is one of the job's own."""
        taken = self._machine.owns(slot)
        if taken:
            self._run(self._machine.slot_acquired(slot))
        return taken

    def slot_lost(self, slot: SlotId, error: RaystreamError) -> bool:
        """Take in that a process is gone; False when it is one of the job's own."""
        taken = self._machine.owns(slot)
        if taken:
            self._run(self._machine.slot_lost(slot, error))
        return taken

    def checkpoint_ended(self, answer: ResolveSavepoint) -> bool:
        """Take in how a checkpoint has ended; False when a client has asked for it."""
        taken = self._machine.awaits(answer.request_id)
        if taken:
            self._run(self._machine.checkpoint_ended(self._now_ms, answer.error))
        return taken

    def attempt_runs(self) -> None:
        """All slots of an attempt process records."""
        self._run(self._machine.attempt_runs(self._now_ms))

    def time_passed(self, now_ms: float) -> None:
        """Do what is due."""
        self._run(self._machine.time_passed(now_ms))

    def job_ended(self, status: JobStatus) -> None:
        """The job ends."""
        self._run(self._machine.job_ended(status))

    # ---- commands --------------------------------------------------------------

    def execute(self, command: cmd.Command) -> None:
        """Do what the machine decided."""
        match command:
            case job_cmd.AcquireSlots(slots):
                self._services.slots.acquire(slots)
            case cmd.DismissSlots(slots):
                self._services.slots.dismiss(slots)
            case cmd.TakeRescaleCheckpoint(wanted):
                self._run(self._checkpoints.checkpoint_requested(self._now_ms, wanted))
            case cmd.RestartRescaled(shape, _, leaving):
                logger.info(
                    "slots leave their nodes" if leaving else "job is rescaled",
                    extra={"parallelism": shape.parallelism, "leaving": leaving},
                )
                self._run(self._job.rescale_ready(self._now_ms, command))
            case cmd.ResolveRescale(request_id, downtime_ms, error):
                self._requests.request_resolved(
                    RequestOutcome(request_id=request_id, downtime_ms=downtime_ms, error=error)
                )
            case _:
                assert_never(command)

    def reshape(self, command: job_cmd.ReshapeJob) -> None:
        """Let the next attempts have another shape, if it is another one, or other processes."""
        shape = command.shape
        if shape != self._shape:
            self._shape, self.parallelism = shape, shape.parallelism
            self._preparation.reshape(shape.parallelism)
            self._checkpoints.job_reshaped(shape.subtasks)
        if command.dismissed:
            self._services.slots.dismiss(command.dismissed, again=shape.slots)

    @property
    def _now_ms(self) -> float:
        return self._services.clock.monotonic_ms()
