"""The slots of a job as Ray actors: created, watched, commanded and killed.

    wanted --> reserved --> starting --> alive --> lost (killed, dead or silent) --> over
                               |
          for a slot that leaves its node, and of a spare: stands by until it is wanted

Implements the coordinator's `SlotPool` over Ray.  Everything happens on the job master's
thread; Ray's answers arrive there as mail.  A slot that is lost and acquired again is another
*incarnation*: whatever still arrives from the one before is dropped.  It gets its process when
nothing is left of the one before (`endings`), so that no two work for one slot: at once where that
one has ended, after some seconds where it had to be killed, and in any case within a bound.

When a node is about to go, its slots get other processes beside those that they have, on other nodes.
They stand by.  When all are there the coordinator is told; it takes a checkpoint, gives up the processes
that leave, and acquires the slots anew.  A slot that loses its process before that takes what stands by.
A spare (`spares`) stands by for a slot from the moment at which that loses its process on the same node.

Three things tell that a process is gone: a command or a heartbeat that fails, in less than
a second after a process died; no answer to a heartbeat for `heartbeat.timeout`.  A broken
data connection is faster than all of them and comes as a report of its peers.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError

from raystream.clock import Clock
from raystream.cluster import losses
from raystream.cluster.actor_calls import ActorCalls
from raystream.cluster.drains import DrainWatch
from raystream.cluster.endings import Endings
from raystream.cluster.heartbeats import Heartbeats
from raystream.cluster.incarnation import Incarnation, SlotListener
from raystream.cluster.reservations import Reservations
from raystream.cluster.resources import Needs
from raystream.cluster.shortage import Shortage
from raystream.cluster.spares import Spares
from raystream.cluster.starts import Starts
from raystream.cluster.worker import WorkerInfo
from raystream.config.options import HeartbeatConfig
from raystream.errors import RaystreamError, SlotLostError
from raystream.ids import JobId, SlotId
from raystream.runtime.mailbox import Mailbox, ThreadBackground
from raystream.runtime.messages import Command

logger = logging.getLogger(__name__)

KILL_THREADS_MAX = 4
"""Processes that are being killed at once."""


_Handle = Callable[[Incarnation, "Future[Any]"], None]
"""Takes the answer to a call to a process."""


class RaySlotPool:
    """Slots of one job on a Ray cluster; all methods on the job master's thread.

    Args:
        job_id: the job.
        master: handle of the job master, for its workers.
        needs: what each slot reserves.
        reservations: reserve it.
        spares: processes that each node with slots keeps ready.
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
        needs: Needs,
        reservations: Reservations,
        spares: int,
        heartbeat: HeartbeatConfig,
        clock: Clock,
        mailbox: Mailbox,
        changed: Callable[[], None],
        first_incarnation: int = 0,
        inherits: bool = False,
    ) -> None:
        self._needs, self._reservations = needs, reservations
        self._starts = Starts(
            job_id,
            master,
            needs=needs,
            reservations=reservations,
            first_incarnation=first_incarnation,
            wanted=self._listens_to,
            started=self._started,
            failed=self._give_up,
        )
        self._mailbox, self._calls = mailbox, (calls := ActorCalls(mailbox))
        self._heartbeats = Heartbeats(
            heartbeat, clock, ask=self._ask_heartbeat, silent=self._falls_silent, failed=self._dies
        )
        # Calls to Ray's head may hang for as long as it is away.
        kills = ThreadBackground(mailbox, name="kill", threads_max=KILL_THREADS_MAX)
        self._endings = Endings(clock, kills, retire=calls.retire, kill=ray.kill, ask=calls.lives)
        looks = ThreadBackground(mailbox, name="resources", threads_max=1)
        self._shortage = Shortage(
            needs, self._waiting, reservations.placed, clock=clock, background=looks, changed=changed
        )
        self._drains = DrainWatch(clock, looks, self._nodes_drain)
        self._spares = self._spares_of(spares, clock, heartbeat.timeout_ms)
        self._workers: dict[SlotId, Incarnation] = {}
        self._standbys: dict[SlotId, Incarnation] = {}  # For slots that leave their nodes or have none.
        self._wanted: list[SlotId] = []  # Acquired while a former process may be left.
        self._listener: SlotListener | None = None
        self._inherits = inherits
        self._early: list[Incarnation] = []  # There before the grace of those before them is over.
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
        self._drains.begin()
        self._spares.begin()

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

    def dismiss(self, slots: Sequence[SlotId], *, again: Collection[SlotId] = ()) -> None:
        """Kill the processes of some slots; who is given one of these numbers later waits for their end."""
        self._wanted = [slot for slot in self._wanted if slot not in slots]
        for worker in [self._workers.pop(slot) for slot in slots if slot in self._workers]:
            self._condemn(worker, self._create_wanted)
        for slot in [slot for slot in slots if slot in self._standbys and slot not in again]:
            self._condemn(self._standbys.pop(slot), self._create_wanted)
        self._end_shortage_if_complete()

    def release(self, released: Callable[[], None]) -> None:
        """Kill all processes; told when nothing is left of them, nor of those that were lost before."""
        for worker in self._processes:
            self._condemn(worker, lambda: None)
        self._workers.clear()
        self._standbys.clear()
        self._wanted.clear()
        self._spares.end()
        self._endings.when_all_over(partial(self._reservations.close, released))
        self._shortage.end()
        self._drains.end()

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
        self._endings.step()
        self._heartbeats.step(self._processes)
        self._shortage.step()
        self._drains.step()
        self._spares.step()

    def next_deadline_ms(self) -> float | None:
        """Return when `step` next has something to do, in ms of the monotonic clock."""
        deadlines = [
            self._shortage.look_ms,
            self._drains.next_ms,
            self._spares.next_ms,
            self._endings.next_deadline_ms(),
            *self._heartbeats.deadlines_ms(self._processes),
        ]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    @property
    def waiting_for(self) -> str:
        """What slots wait for that have no process yet, in words; empty when nothing is known."""
        leaves = self._shortage.text and any(not one.spare_on for one in self._standbys.values())
        return f"{'to leave a node that is about to go: ' if leaves else ''}{self._shortage.text}"

    @property
    def workers(self) -> tuple[WorkerInfo, ...]:
        """Where the slots run that have a process, by slot."""
        workers = [worker for _, worker in sorted(self._workers.items())]
        return tuple(worker.info for worker in workers if worker.info is not None)

    # ---- nodes that are about to go ----------------------------------------------

    def _nodes_that_stay(self) -> set[str]:
        """Return the nodes on which slots are, or are about to be."""
        nodes = {one.spare_on if one.info is None else one.info.node_id for one in self._processes}
        return nodes - self._drains.draining - {""}

    def _nodes_drain(self, nodes: frozenset[str]) -> None:
        """Let other processes stand by for the slots on these nodes, and tell when all are there."""

        def goes(worker: Incarnation) -> bool:
            return worker.info is not None and worker.info.node_id in nodes

        leaving = [slot for slot, one in sorted(self._workers.items()) if goes(one) and not one.killed]
        for slot, standby in [*self._standbys.items()]:
            # A slot without a process is between two of them, and its next one is the one that stands by.
            one = self._workers.get(slot)
            if goes(standby) or (one is not None and not one.killed and not goes(one)):
                self._condemn(self._standbys.pop(slot), self._create_wanted)
        new = [s for s in leaving if s not in self._standbys and not self._endings.awaits(s)]
        if new:
            logger.warning("node of slots is about to go, they are to leave it", extra={"slots": new})
            self._create(new, self._standbys)
        there = [slot for slot in leaving if slot in self._standbys and self._standbys[slot].info is not None]
        if leaving and there == leaving:
            assert self._listener is not None, "processes before `attach`"
            self._listener.slots_leave(tuple(leaving))

    def _spares_of(self, per_node: int, clock: Clock, silent_ms: float) -> Spares:
        return Spares(
            per_node,
            clock,
            silent_ms=silent_ms,
            start=self._starts.spare,
            ask=self._calls.ready,
            end=lambda actor: self._endings.condemn(None, actor, silent=True),
            nodes=self._nodes_that_stay,
        )

    # ---- processes -----------------------------------------------------------------

    def _create_wanted(self) -> None:
        free = [slot for slot in self._wanted if not self._endings.awaits(slot)]
        self._wanted = [slot for slot in self._wanted if slot not in free]
        for slot in free:
            if slot in self._standbys:
                self._workers[slot] = worker = self._standbys.pop(slot)
                if worker.info is not None:
                    self._mailbox.post(partial(self._alive, worker))
        self._create([slot for slot in free if slot not in self._workers], self._workers)

    def _create(self, slots: Sequence[SlotId], among: dict[SlotId, Incarnation]) -> None:
        created = self._starts.number(slots)
        among.update({worker.slot: worker for worker in created})
        used = [worker.info.node_id for worker in self._workers.values() if worker.info is not None]
        if created:
            self._shortage.begin()
        self._starts.start(created, used)

    def _started(self, worker: Incarnation) -> None:
        self._when_done(worker, worker.actor.begin.remote(worker.slot, worker.incarnation), self._begun)

    # ---- answers ---------------------------------------------------------------

    def _begun(self, worker: Incarnation, answer: "Future[WorkerInfo]") -> None:
        error = answer.exception()
        if error is not None:
            self._give_up(worker, losses.slot_lost(worker.slot, None, error))
            return
        worker.info = info = answer.result()
        self._heartbeats.begin(worker)
        logger.info("slot has a process", extra={"slot": info.slot, "node": info.node_ip, "pid": info.pid})
        self._end_shortage_if_complete()
        if self._workers.get(worker.slot) is worker:
            self._alive(worker)

    def _alive(self, worker: Incarnation) -> None:
        """A slot has a process that takes commands."""
        if self._inherits:
            self._early.append(worker)
        elif self._listens_to(worker):
            self._acquired(worker)

    def _inherited(self) -> None:
        """Nothing is left of processes under an earlier job master: the new ones may work."""
        self._inherits, early = False, self._early
        for worker in early:
            if self._listens_to(worker):
                self._acquired(worker)

    def _acquired(self, worker: Incarnation) -> None:
        assert self._listener is not None, "answer before `attach`"
        self._listener.slot_acquired(worker.slot)

    def _waiting(self) -> tuple[list[Incarnation], list[SlotId]]:
        missing = [one for one in self._processes if one.info is None and not one.spare_on]
        return missing, sorted({one.slot for one in self._processes})

    def _end_shortage_if_complete(self) -> None:
        if not self._waiting()[0]:
            self._shortage.end()

    def _ask_heartbeat(self, worker: Incarnation, heard: _Handle) -> None:
        self._when_done(worker, worker.actor.heartbeat.remote(), heard)

    def _delivered(self, worker: Incarnation, answer: "Future[None]") -> None:
        # One that fails may have been lost for good: what follows it would come out of order.
        error = answer.exception()
        if error is not None:
            self._dies(worker, error)

    # ---- inside ----------------------------------------------------------------

    @property
    def _processes(self) -> list[Incarnation]:
        return [*self._workers.values(), *self._standbys.values()]

    def _when_done(self, worker: Incarnation, ref: Any, handle: _Handle) -> None:
        """Handle the answer to a call, if the worker is still ours then."""
        self._calls.ask(ref, lambda answer: handle(worker, answer) if self._listens_to(worker) else None)

    def _current(self, worker: Incarnation) -> bool:
        return worker in (self._workers.get(worker.slot), self._standbys.get(worker.slot))

    def _listens_to(self, worker: Incarnation) -> bool:
        return self._current(worker) and not worker.killed

    def _condemn(self, worker: Incarnation, over: Callable[[], None]) -> None:
        if worker.actor is None:  # What is being reserved for it is given back when it is there.
            self._mailbox.post(over)
            return

        def gone() -> None:
            if worker.heir is not None and self._current(worker.heir):
                self._reservations.hand_over(worker.incarnation, worker.heir.incarnation)
            else:
                self._reservations.release(worker.incarnation)
            over()

        # Who has never answered was never sent anything, and has nothing to end.
        self._endings.condemn(worker.slot, worker.actor, gone, silent=worker.info is None)

    def _dies(self, worker: Incarnation, error: BaseException) -> None:
        """Give up a process that fails; when it is dead, a spare beside it works in its stead."""
        lost = losses.slot_lost(worker.slot, worker.info, error)
        node_id = "" if worker.info is None else worker.info.node_id
        dead = not isinstance(error, ActorUnavailableError)  # Else its node may be away.
        if node_id and dead and worker.slot not in self._standbys:
            actor = self._spares.take(node_id, self._needs(worker.slot))
            if actor is not None:
                (heir,) = self._starts.number([worker.slot])
                heir.actor, heir.spare_on = actor, node_id
                worker.heir = self._standbys[worker.slot] = heir
                self._heartbeats.await_first(heir)
                self._started(heir)
        self._give_up(worker, lost)

    def _falls_silent(self, worker: Incarnation, silent_ms: float) -> None:
        self._give_up(worker, losses.slot_silent(worker.slot, worker.info, silent_ms))

    def _give_up(self, worker: Incarnation, error: RaystreamError) -> None:
        self._condemn(worker, self._create_wanted)
        self._lost(worker, error)

    def _lost(self, worker: Incarnation, error: RaystreamError) -> None:
        if self._standbys.get(worker.slot) is worker:  # Its slot gets another one.
            del self._standbys[worker.slot]
            logger.warning("process that stands by is lost", extra={"slot": worker.slot}, exc_info=error)
        elif self._current(worker):
            del self._workers[worker.slot]
            if worker.spare_on and worker.info is None:  # It never had the slot: no failure of the job.
                logger.warning("spare process is lost", extra={"slot": worker.slot}, exc_info=error)
                self._wanted.append(worker.slot)
                return
            logger.warning("slot lost", extra={"slot": worker.slot, "cause": error.message})
            assert self._listener is not None, "loss before `attach`"
            self._listener.slot_lost(worker.slot, error)
