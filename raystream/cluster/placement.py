"""The slots of a job as Ray actors: created, watched, commanded and killed.

    wanted --> starting --> alive --> lost (killed, dead or silent) --> over

Implements the coordinator's `SlotPool` over Ray.  Everything happens on the job master's
thread; Ray's answers arrive there as mail.  A slot that is lost and acquired again is another
*incarnation*: whatever still arrives from the one before is dropped.  It gets its process when
nothing is left of the one before (`endings`), so that no two work for one slot: at once where that
one has ended, after some seconds where it had to be killed, and in any case within a bound.

Three things tell that a process is gone: a command or a heartbeat that fails, in less than
a second after a process died; no answer to a heartbeat for `heartbeat.timeout`.  A broken
data connection is faster than all of them and comes as a report of its peers.
"""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import ray
from ray.exceptions import ActorUnavailableError

from raystream.clock import Clock
from raystream.cluster import losses
from raystream.cluster.endings import Answer, Endings
from raystream.cluster.process import UNRECORDED
from raystream.cluster.resources import cluster_cpus, waiting_text
from raystream.cluster.vitals import Heartbeat
from raystream.cluster.worker import SlotActor, WorkerInfo
from raystream.config.options import HeartbeatConfig
from raystream.errors import RaystreamError, SlotLostError
from raystream.ids import JobId, SlotId
from raystream.runtime.mailbox import Mailbox, ThreadBackground
from raystream.runtime.messages import Command

logger = logging.getLogger(__name__)

WAIT_SHOWN_AFTER_MS = 5_000.0
"""A job that waits for its slots this long says what it waits for, and again after as long."""

KILL_THREADS_MAX = 4
"""Processes that are being killed at once."""


class SlotListener(Protocol):
    """Who is told what becomes of slots; the coordinator."""

    def slot_acquired(self, slot: SlotId) -> None:
        """The slot takes commands."""

    def slot_lost(self, slot: SlotId, error: RaystreamError) -> None:
        """The slot is gone."""


@dataclass(eq=False, kw_only=True)
class _Worker:
    """One incarnation of a slot."""

    slot: SlotId
    incarnation: int
    actor: Any
    info: WorkerInfo | None = None
    """None until it has answered for the first time."""
    commands: list[Command] = field(default_factory=list)
    batches: int = 0
    """Batches of reports that were taken."""
    ping_ms: float | None = None
    """When the next heartbeat is to be asked for; None while an answer is waited for."""
    silent_ms: float | None = None
    """When the first heartbeat was asked for that was not answered; None when all were."""
    heartbeat: Heartbeat | None = None
    killed: bool = False
    """It is being killed; only the end of that is its loss."""


class RaySlotPool:
    """Slots of one job on a Ray cluster; all methods on the job master's thread.

    Args:
        job_id: the job.
        master: handle of the job master, for its workers.
        cpus: CPUs that each slot reserves.
        heartbeat: how often slots are asked, and how long they may be silent.
        clock: measures both.
        mailbox: brings Ray's answers to the job master's thread.
        changed: called when `waiting_for` has changed.
        first_incarnation: numbers of processes go on above it; other ones than under any job master before.
        inherits: the job ran under a job master that has died, so that Ray has killed its slots.
    """

    def __init__(
        self,
        *,
        job_id: JobId,
        master: Any,
        cpus: float,
        heartbeat: HeartbeatConfig,
        clock: Clock,
        mailbox: Mailbox,
        changed: Callable[[], None],
        first_incarnation: int = 0,
        inherits: bool = False,
    ) -> None:
        self._job_id = job_id
        self._master = master
        self._cpus = cpus
        self._config = heartbeat
        self._clock = clock
        self._mailbox = mailbox
        self._changed = changed
        # Calls to Ray's head may hang for as long as it is away.
        kills = ThreadBackground(mailbox, name="kill", threads_max=KILL_THREADS_MAX)
        self._endings = Endings(clock, kills, retire=self._retire, kill=ray.kill, ask=self._ask_whether_gone)
        self._looks = ThreadBackground(mailbox, name="resources", threads_max=1)
        self._actor_class: Any = ray.remote(SlotActor)
        self._workers: dict[SlotId, _Worker] = {}
        self._wanted: list[SlotId] = []  # Acquired while a former process may be left.
        self._incarnations = first_incarnation
        self._listener: SlotListener | None = None
        self._look_ms: float | None = None  # When to find out what starting slots wait for.
        self.waiting_for = ""
        self._inherits = inherits
        self._early: list[_Worker] = []  # There before the grace of those before them is over.
        if inherits:
            self._endings.inherit(self._inherited)

    def attach(self, listener: SlotListener) -> None:
        """Tell this listener from now on."""
        self._listener = listener

    # ---- what the coordinator asks for ---------------------------------------

    def acquire(self, slots: Sequence[SlotId]) -> None:
        """Create processes for slots that have none, each when nothing is left of the one before."""
        self._wanted += [slot for slot in slots if slot not in self._workers and slot not in self._wanted]
        self._create_wanted()
        self._look_ms = self._clock.monotonic_ms() + WAIT_SHOWN_AFTER_MS

    def send(self, slot: SlotId, command: Command) -> None:
        """Let the slot have a command with the next `flush`; a lost slot gets nothing."""
        worker = self._workers.get(slot)
        if worker is not None:
            worker.commands.append(command)

    def kill(self, slot: SlotId) -> None:
        """Kill the process of a slot; answered by `slot_lost` when nothing of it is left."""
        worker = self._workers.get(slot)
        if worker is not None and not worker.killed:
            worker.killed, worker.ping_ms, worker.silent_ms = True, None, None
            where = losses.place(worker.info)
            error = SlotLostError("process of a slot was killed: it did not stop", slot=slot, **where)
            self._condemn(worker, partial(self._lost, worker, error))

    def dismiss(self, slots: Sequence[SlotId]) -> None:
        """Kill the processes of some slots; who is given one of these numbers later waits for their end."""
        self._wanted = [slot for slot in self._wanted if slot not in slots]
        for worker in [self._workers.pop(slot) for slot in slots if slot in self._workers]:
            self._condemn(worker, self._create_wanted)
        self._show_if_complete()

    def release(self, released: Callable[[], None]) -> None:
        """Kill all processes; told when nothing is left of them, nor of those that were lost before."""
        for worker in self._workers.values():
            self._condemn(worker, lambda: None)
        self._workers.clear()
        self._wanted.clear()
        self._endings.when_all_over(released)
        self._look_ms = None
        self._show("")

    # ---- what the job master's loop calls --------------------------------------

    def flush(self) -> None:
        """Send what the coordinator had for the slots; one call for each slot."""
        for worker in self._workers.values():
            if worker.commands:
                commands, worker.commands = worker.commands, []
                self._when_done(worker, worker.actor.deliver.remote(commands), self._delivered)

    def takes(self, slot: SlotId, incarnation: int, batch: int) -> bool:
        """Return whether a batch of reports counts: not of a former process, and not a repetition."""
        worker = self._workers.get(slot)
        if worker is None or worker.incarnation != incarnation or batch <= worker.batches:
            return False
        worker.batches = batch
        return True

    def step(self) -> None:
        """Do what is due: ask for heartbeats, give up silent slots, kill again, look what is waited for."""
        now_ms = self._clock.monotonic_ms()
        self._endings.step()
        for worker in [*self._workers.values()]:
            if worker.silent_ms is not None and now_ms >= worker.silent_ms + self._config.timeout_ms:
                silent_ms = now_ms - worker.silent_ms
                self._give_up(worker, losses.slot_silent(worker.slot, worker.info, silent_ms))
            elif worker.ping_ms is not None and now_ms >= worker.ping_ms:
                worker.ping_ms = None
                worker.silent_ms = now_ms if worker.silent_ms is None else worker.silent_ms
                self._when_done(worker, worker.actor.heartbeat.remote(), self._heard)
        if self._look_ms is not None and now_ms >= self._look_ms:
            self._look(now_ms)

    def next_deadline_ms(self) -> float | None:
        """Return when `step` next has something to do, in ms of the monotonic clock."""
        deadlines = [self._look_ms, self._endings.next_deadline_ms()]
        for worker in self._workers.values():
            deadlines.append(worker.ping_ms)
            if worker.silent_ms is not None:
                deadlines.append(worker.silent_ms + self._config.timeout_ms)
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    @property
    def workers(self) -> tuple[WorkerInfo, ...]:
        """Where the slots run that have a process, by slot."""
        workers = [worker for _, worker in sorted(self._workers.items())]
        return tuple(worker.info for worker in workers if worker.info is not None)

    # ---- answers ---------------------------------------------------------------

    def _create_wanted(self) -> None:
        wanted, self._wanted = self._wanted, []
        for slot in wanted:
            if self._endings.awaits(slot):
                self._wanted.append(slot)
            else:
                self._create(slot)

    def _create(self, slot: SlotId) -> None:
        self._incarnations += 1
        actor = self._actor_class.options(
            num_cpus=self._cpus, max_restarts=0, max_task_retries=0, **UNRECORDED
        ).remote(self._job_id, slot, self._incarnations, self._master)
        worker = _Worker(slot=slot, incarnation=self._incarnations, actor=actor)
        self._workers[slot] = worker
        self._when_done(worker, actor.describe.remote(), self._described)

    def _described(self, worker: _Worker, answer: "Future[WorkerInfo]") -> None:
        error = answer.exception()
        if error is not None:
            self._give_up(worker, losses.slot_lost(worker.slot, None, error))
            return
        worker.info = info = answer.result()
        worker.ping_ms = self._clock.monotonic_ms() + self._config.interval_ms
        logger.info("slot has a process", extra={"slot": info.slot, "node": info.node_ip, "pid": info.pid})
        self._show_if_complete()
        if self._inherits:
            self._early.append(worker)
        else:
            self._acquired(worker)

    def _inherited(self) -> None:
        """Nothing is left of processes under an earlier job master: the new ones may work."""
        self._inherits, early = False, self._early
        for worker in early:
            if self._listens_to(worker):
                self._acquired(worker)

    def _acquired(self, worker: _Worker) -> None:
        assert self._listener is not None, "answer before `attach`"
        self._listener.slot_acquired(worker.slot)

    def _show_if_complete(self) -> None:
        if not self._wanted and all(worker.info is not None for worker in self._workers.values()):
            self._look_ms = None
            self._show("")

    def _delivered(self, worker: _Worker, answer: "Future[None]") -> None:
        # One that fails may have been lost for good: what follows it would come out of order.
        error = answer.exception()
        if error is not None:
            self._give_up(worker, losses.slot_lost(worker.slot, worker.info, error))

    def _heard(self, worker: _Worker, answer: "Future[Heartbeat]") -> None:
        error = answer.exception()
        worker.ping_ms = self._clock.monotonic_ms() + self._config.interval_ms
        if isinstance(error, ActorUnavailableError):
            return  # A suspicion only; the time-out runs on.
        if error is not None:
            self._give_up(worker, losses.slot_lost(worker.slot, worker.info, error))
            return
        worker.silent_ms = None
        heartbeat = answer.result()
        if heartbeat.stack and not (worker.heartbeat and worker.heartbeat.stack):
            where = {"slot": worker.slot, "held_ms": round(heartbeat.held_ms)}
            logger.warning("loop of a slot is held up, in\n%s", heartbeat.stack.rstrip(), extra=where)
        worker.heartbeat = heartbeat

    # ---- inside ----------------------------------------------------------------

    def _when_done(self, worker: _Worker, ref: Any, handle: "Callable[[_Worker, Future[Any]], None]") -> None:
        """Handle the answer to a call on the job master's thread, if the worker is still ours then."""

        def arrived(answer: "Future[Any]") -> None:
            self._mailbox.post(lambda: handle(worker, answer) if self._listens_to(worker) else None)

        ref.future().add_done_callback(arrived)

    def _current(self, worker: _Worker) -> bool:
        return self._workers.get(worker.slot) is worker

    def _listens_to(self, worker: _Worker) -> bool:
        return self._current(worker) and not worker.killed

    def _condemn(self, worker: _Worker, over: Callable[[], None]) -> None:
        # Who has never answered was never sent anything, and has nothing to end.
        self._endings.condemn(worker.slot, worker.actor, over, silent=worker.info is None)

    def _give_up(self, worker: _Worker, error: RaystreamError) -> None:
        self._condemn(worker, self._create_wanted)
        self._lost(worker, error)

    def _lost(self, worker: _Worker, error: RaystreamError) -> None:
        if self._current(worker):
            del self._workers[worker.slot]
            logger.warning("slot lost", extra={"slot": worker.slot, "cause": error.message})
            assert self._listener is not None, "loss before `attach`"
            self._listener.slot_lost(worker.slot, error)

    def _retire(self, actor: Any, answered: Callable[[Answer], None]) -> None:
        self._ask(actor.retire.remote(), answered)

    def _ask_whether_gone(self, actor: Any, answered: Callable[[Answer], None]) -> None:
        self._ask(actor.heartbeat.remote(), answered)

    def _ask(self, ref: Any, answered: Callable[[Answer], None]) -> None:
        def arrived(call: "Future[Any]") -> None:
            answer = losses.answer_of(call)
            self._mailbox.post(lambda: answered(answer))

        ref.future().add_done_callback(arrived)

    def _look(self, now_ms: float) -> None:
        """Find out what starting slots wait for."""
        self._look_ms = now_ms + WAIT_SHOWN_AFTER_MS
        self._looks.submit(cluster_cpus, self._looked)

    def _looked(self, cluster: Any) -> None:
        missing = sum(worker.info is None for worker in self._workers.values())
        if self._look_ms is None or not missing:
            return  # They have started meanwhile.
        if isinstance(cluster, Exception):
            self._show("Ray's head does not answer")
        else:
            self._show(waiting_text(missing, len(self._workers), self._cpus, cluster))

    def _show(self, text: str) -> None:
        if text != self.waiting_for:
            self.waiting_for = text
            if text:
                logger.warning("job waits for slots", extra={"missing": text})
            self._changed()
