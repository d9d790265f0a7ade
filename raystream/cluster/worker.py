"""A slot of a job as a Ray actor: one process, one loop.

The methods run on Ray's main thread; each puts mail or reads a counter and returns at once.
The slot's loop has a thread of its own, and so has the way back (`outbox`).  An actor with
concurrency groups would run nothing on its main thread and keep no order between calls; one
with a method that blocks would not answer heartbeats.

The process ends with its job master, by Ray, which kills what a dead process has created, and,
once it works for a slot, by its own doing when nobody takes its reports.
"""

import gc
import logging
import os
import threading
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError

from raystream.clock import Clock, SystemClock
from raystream.cluster.metrics_export import SlotExporter
from raystream.cluster.node_logs import link_logs
from raystream.cluster.outbox import Outbox, UnreachableError
from raystream.cluster.process import configure_logging
from raystream.cluster.vitals import Heartbeat, LoopThread, LoopWatch, stack_of
from raystream.ids import JobId, SlotId
from raystream.runtime.mailbox import Mailbox
from raystream.runtime.messages import Command, Progress, Report
from raystream.runtime.slot import Slot
from raystream.runtime.tcp import TcpLinks
from raystream.runtime.thread_pools import SlotThreads
from raystream.runtime.tls import tls_of_environment

logger = logging.getLogger(__name__)

MASTER_GONE_EXIT_CODE = 70
RETIRE_S_MAX = 2.0
"""Time that the loop of a slot has to end when the process is to, and each kind of its threads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """Where a slot runs; asked once, and shown in errors."""

    slot: SlotId
    node_ip: str
    """Ray's address of the node, at which the slot's peers reach it too."""
    node_id: str
    pid: int


class SlotActor:
    """A process that works for one slot as soon as it is told for which.

    Args:
        job_id: the job, for people.
        name: what Ray calls it, for people.
        master: handle of the job master, which takes the reports.
    """

    def __init__(self, job_id: JobId, name: str, master: Any) -> None:
        configure_logging(job_id)
        self._job_id = job_id
        self._name = name
        self._master = master
        self._work: _SlotWork | None = None
        _tune_garbage_collection()

    def ready(self) -> None:
        """Answer, which means that the process is there."""

    def begin(self, slot: SlotId, incarnation: int) -> WorkerInfo:
        """Work for a slot from now on; the answer says where, and that it takes commands.

        Args:
            slot: its number.
            incarnation: tells this process from others that were the same slot before.
        """
        self._work = _SlotWork(self._job_id, slot, incarnation, self._master)
        return self._work.info

    def deliver(self, commands: list[Command]) -> None:
        """Put commands into the slot's mailbox."""
        self._begun.deliver(commands)

    def heartbeat(self) -> Heartbeat:
        """Return how the loop has got on.

        Raises:
            RaystreamError: the loop has ended, which nothing that it runs may make it do.
        """
        return self._begun.heartbeat()

    def retire(self) -> bool:
        """Give everything up; True when nothing of the slot runs or writes any more.

        Blocks, since it is the last call: the process is killed next.  It does not end itself, because
        Ray shows people every end of a process that it was not asked for as a crash.
        """
        return self._begun.retire()

    @property
    def _begun(self) -> "_SlotWork":
        assert self._work is not None, "call before `begin`"
        return self._work

    def __repr__(self) -> str:
        """Return what Ray puts before each line that the process logs."""
        return self._name


class _SlotWork:
    """The slot of a process, with all that runs in it; arguments as for `SlotActor` and its `begin`."""

    def __init__(self, job_id: JobId, slot: SlotId, incarnation: int, master: Any) -> None:
        link_logs(job_id, f"slot-{slot}")
        self._host: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        self._id = slot
        self._incarnation = incarnation
        self._master = master
        self._exporter = SlotExporter(job_id)
        self._outbox = Outbox(self._call_master, _exit)
        clock = SystemClock()
        self._links = WatchedLinks(self._host, clock)
        mailbox = Mailbox(self._links.wake)
        self._threads = threads = SlotThreads(mailbox, slot)
        self._slot = Slot(
            slot,
            clock=clock,
            mailbox=mailbox,
            uploads=threads.uploads,
            commits=threads.commits,
            links=self._links,
            report=self._outbox.put,
            reclaim=gc.collect,
        )
        self._loop = LoopThread(self._slot.run, name=f"slot-{slot}")
        self._watch = LoopWatch(
            clock,
            rounds=lambda: self._slot.rounds,
            waiting=lambda: self._links.waiting,
            stack=lambda: stack_of(self._loop.ident),
        )
        threading.Thread(target=self._outbox.run, name=f"slot-{slot}-outbox", daemon=True).start()
        self._loop.start()
        logger.info("slot created", extra={"job_id": job_id, "slot": slot, "host": self._host})

    @property
    def info(self) -> WorkerInfo:
        """Where the slot runs."""
        node_id = ray.get_runtime_context().get_node_id()
        return WorkerInfo(slot=self._id, node_ip=self._host, node_id=node_id, pid=os.getpid())

    def deliver(self, commands: list[Command]) -> None:
        for command in commands:
            self._slot.deliver(command)

    def heartbeat(self) -> Heartbeat:
        self._loop.check()
        return self._watch.heartbeat()

    def retire(self) -> bool:
        self._slot.close()
        self._outbox.close()  # The loop may be waiting for room there.
        self._loop.join(RETIRE_S_MAX)
        self._threads.close()
        return not self._loop.is_alive() and self._threads.join(RETIRE_S_MAX)

    def _call_master(self, batch: int, reports: list[Report]) -> None:
        for report in reports:
            if isinstance(report, Progress):
                self._exporter.export(report)
        try:
            ray.get(self._master.report.remote(self._id, self._incarnation, batch, reports))
        except ActorUnavailableError as error:
            raise UnreachableError from error


class WatchedLinks(TcpLinks):
    """Links as Ray's variables want them, that tell other threads whether the loop waits in them."""

    def __init__(self, host: str, clock: Clock) -> None:
        super().__init__(host, clock, tls=partial(tls_of_environment, os.environ))
        self.waiting = False

    def wait(self, timeout_ms: float | None) -> None:
        self.waiting = True
        try:
            super().wait(timeout_ms)
        finally:
            self.waiting = False


def _tune_garbage_collection() -> None:
    """Make cycle collection rare: batches and state are many objects and hold no cycles.

    With the default thresholds, collections that each walk the whole state took a measurable
    share of the loop's time and lengthened its longest pauses.  Modules and Ray's own objects
    live as long as the process, so they are never walked at all.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def _exit(error: BaseException) -> None:
    """End the process without more ado: with no job master nothing that it does can count."""
    logger.warning("job master is gone, slot exits", exc_info=error)
    logging.shutdown()
    os._exit(MASTER_GONE_EXIT_CODE)
