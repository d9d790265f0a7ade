"""The process of a job's coordinator in a simulated run: the real one, its mailbox and its loop.

It never dies here: what becomes of a job whose master dies is decided by a new life of it.
"""

import random

from raystream.api.runner import ClientRequest
from raystream.errors import RaystreamError
from raystream.ids import SlotId
from raystream.runtime import messages as msg
from raystream.runtime.coordinator import JobCoordinator
from raystream.runtime.coordinator_services import CoordinatorServices, JobSubmission
from raystream.runtime.coordinator_storage import open_storage
from raystream.runtime.coordinator_view import JobView
from raystream.runtime.mailbox import Mailbox
from raystream.storage.filesystem import OpenFileSystem
from raystream.testing.simulation_faults import MASTER_MACHINE
from raystream.testing.simulation_slots import SimulatedSlotPool
from raystream.testing.simulation_work import Running, SimulatedBackground
from raystream.testing.simulation_world import VirtualClock, World

_CLOCK_READ_MS = 0.001


class CoordinatorProcess:
    """Runs the coordinator of one job.

    Args:
        submission: the job.
        world: where it runs.
        pool: where its slots come from.
        running: told when the coordinator's blocking work runs.
        open_fs: gives the store.
    """

    name = "coordinator"

    def __init__(
        self,
        submission: JobSubmission,
        world: World,
        pool: SimulatedSlotPool,
        *,
        running: Running,
        open_fs: OpenFileSystem,
    ) -> None:
        self._world = world
        self._mailbox = Mailbox(lambda: world.wake(self))
        self._status = ""
        background = SimulatedBackground(
            world, self._mailbox, running, process=None, extra_ms=pool.watcher.work_begun
        )
        self._coordinator = JobCoordinator(
            CoordinatorServices(
                submission=submission,
                storage=open_storage(submission.job_id, submission.config, open_fs=open_fs),
                slots=pool,
                clock=VirtualClock(world, _CLOCK_READ_MS, MASTER_MACHINE),
                background=background,
                log=background,
                discovery=background,
                deletion=background,
                rng=random.Random(world.rng.getrandbits(64)),
            ),
            on_change=self._changed,
            on_output=lambda _output: None,
        )
        pool.user = self
        world.add(self)

    def start(self) -> None:
        """Begin the job."""
        self._mailbox.post(self._coordinator.start)

    def step(self) -> bool:
        """Do one round of the coordinator's loop, and check what must hold after it."""
        worked = self._mailbox.run_pending()
        worked = self._coordinator.step() or worked
        if worked:
            self._coordinator.validate()
        return worked

    def next_deadline_ms(self) -> float | None:
        """Return when the coordinator has timed work."""
        return self._coordinator.next_deadline_ms()

    @property
    def finished(self) -> bool:
        """True when the job has ended."""
        return self._coordinator.finished

    def view(self) -> JobView:
        """Return how the job stands."""
        return self._coordinator.view()

    def request(self, request: ClientRequest) -> None:
        """A client wants something."""
        self._world.record("client", type(request).__name__)
        self._mailbox.post(lambda: self._coordinator.request(request))

    def close(self) -> None:
        """The job has ended: nothing runs any more."""
        self._world.remove(self)

    def slot_acquired(self, slot: SlotId) -> None:
        self._mailbox.post(lambda: self._coordinator.slot_acquired(slot))

    def slot_lost(self, slot: SlotId, error: RaystreamError) -> None:
        self._mailbox.post(lambda: self._coordinator.slot_lost(slot, error))

    def slot_reported(self, report: msg.Report) -> None:
        self._mailbox.post(lambda: self._coordinator.slot_reported(report))

    def _changed(self) -> None:
        """Show the job's status in the trace."""
        view = self.view()
        status = f"job is {view.status.value} in attempt {view.attempt}"
        if status != self._status:
            self._status = status
            self._world.record(self.name, status)
