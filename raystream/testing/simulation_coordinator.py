"""The job masters of a simulated job: the real coordinator in one process after another.

    job master --dies, is presumed dead--> after a while: the next one, from the same store
                                           the old one, if it only slept, goes on beside it

Each has processes of its own for its slots.  Those of a dead one work on until their node finds out,
and a request to the store that was under way when a job master died may still take effect.
"""

import random
from collections.abc import Callable

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
from raystream.testing.simulation_slots import SimulatedSlotPool
from raystream.testing.simulation_work import Running, SimulatedBackground
from raystream.testing.simulation_world import ProcessDiedError, VirtualClock, World

MASTER_MACHINE = "machine of the job master"

NEXT_MASTER_MS_MAX = 200.0
"""Longest time from the death of a job master to the start of the next one."""

_CLOCK_READ_MS = 0.001


class CoordinatorProcess:
    """One life of a job's master.

    Args:
        submission: the job.
        world: where it runs.
        pool: where its slots come from.
        running: told whose code runs.
        open_fs: gives the store.
        number: of this life, from 1.

    Attributes:
        alive: False from the moment of its death.
    """

    slot_id: SlotId | None = None

    def __init__(
        self,
        submission: JobSubmission,
        world: World,
        pool: SimulatedSlotPool,
        *,
        running: Running,
        open_fs: OpenFileSystem,
        number: int,
    ) -> None:
        self.name = f"coordinator {number}"
        self.alive = True
        self.pool = pool
        self._world = world
        self._running = running
        self._mailbox = Mailbox(lambda: world.wake(self))
        self._status = ""
        background = SimulatedBackground(
            world, self._mailbox, running, process=self, extra_ms=pool.watcher.work_begun
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
                inherits=number > 1,
            ),
            on_change=self._changed,
            on_output=lambda _output: None,
        )
        pool.user = self
        world.add(self)

    def start(self) -> None:
        """Begin the job, or go on with it."""
        self._mailbox.post(self._coordinator.start)

    def step(self) -> bool:
        """Do one round of the coordinator's loop, and check what must hold after it."""
        try:
            with self._running.inside(self):
                worked = self._mailbox.run_pending()
                worked = self._coordinator.step() or worked
        except ProcessDiedError:
            return False
        if worked:
            self._coordinator.validate()
        return worked

    def next_deadline_ms(self) -> float | None:
        """Return when the coordinator has timed work."""
        return self._coordinator.next_deadline_ms() if self.alive else None

    @property
    def finished(self) -> bool:
        """True when the job has ended, or belongs to another process."""
        return self._coordinator.finished

    def view(self) -> JobView:
        """Return how the job stands."""
        return self._coordinator.view()

    def request(self, request: ClientRequest) -> None:
        """A client wants something."""
        self._mailbox.post(lambda: self._coordinator.request(request))

    def die(self) -> None:
        """Lose mailbox and blocking work at once; the slots' processes follow."""
        self.alive = False
        self._world.remove(self)
        self.pool.orphan()

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


class JobMasters:
    """All job masters of one job.

    Args:
        submission: the job.
        world: where they run.
        make_pool: gives the slots of the n-th one, from 1.
        running: told whose code runs.
        open_fs: gives the store.

    Attributes:
        job_id: of the job.
    """

    def __init__(
        self,
        submission: JobSubmission,
        world: World,
        make_pool: Callable[[int], SimulatedSlotPool],
        *,
        running: Running,
        open_fs: OpenFileSystem,
    ) -> None:
        self._submission = submission
        self._world = world
        self._make_pool = make_pool
        self._running = running
        self._open_fs = open_fs
        self.job_id = submission.job_id
        self._lives: list[CoordinatorProcess] = []
        self._requests: list[ClientRequest] = []
        self._next_is_due = False
        checkpointing = submission.config.checkpointing
        self._durable = checkpointing.interval_ms is not None and checkpointing.directory is not None

    def start(self) -> None:
        """Begin the job, or another life of its master."""
        self._next_is_due = False
        number = len(self._lives) + 1
        life = CoordinatorProcess(
            self._submission,
            self._world,
            self._make_pool(number),
            running=self._running,
            open_fs=self._open_fs,
            number=number,
        )
        self._lives.append(life)
        self._world.record(life.name, "starts")
        life.start()
        for request in self._requests:
            life.request(request)  # A client that has no answer asks again.

    @property
    def current(self) -> CoordinatorProcess:
        """The newest one."""
        return self._lives[-1]

    @property
    def finished(self) -> bool:
        """True when no job master has anything to do any more."""
        return not self._next_is_due and all(life.finished for life in self._lives if life.alive)

    @property
    def contested(self) -> bool:
        """True when more than one is alive."""
        return sum(life.alive for life in self._lives) > 1

    def view(self) -> JobView:
        """Return how the job stands, by who is its master."""
        views = [life.view() for life in self._lives if life.alive]
        return next((view for view in reversed(views) if not view.abandoned), views[-1])

    def request(self, request: ClientRequest) -> None:
        """A client wants something."""
        self._world.record("client", type(request).__name__)
        self._requests.append(request)
        self.current.request(request)

    def crash(self) -> bool:
        """Let the newest one die; False when there is none, or when nobody could go on with the job."""
        if not self._replaceable:
            return False
        self._world.record(self.current.name, "dies")
        self.current.die()
        self._replace()
        return True

    def pause(self, duration_ms: float) -> bool:
        """Let the newest one do nothing for a while; False when there is none."""
        if not self.current.alive or self.current.finished:
            return False
        self._world.record(self.current.name, f"pauses for {duration_ms} ms")
        self._world.pause(self.current, duration_ms)
        return True

    def presume_dead(self, duration_ms: float) -> bool:
        """Pause the newest one and start another before or after it wakes up."""
        if not self._replaceable:
            return False
        self.pause(duration_ms)
        self._replace()
        return True

    def close(self) -> None:
        """The job has ended: nothing runs any more."""
        for life in self._lives:
            if life.alive:
                self._world.remove(life)

    @property
    def _replaceable(self) -> bool:
        current = self.current
        return self._durable and not self._next_is_due and current.alive and not current.finished

    def _replace(self) -> None:
        self._next_is_due = True
        self._world.after(self._world.delay_ms(NEXT_MASTER_MS_MAX), self.start)
