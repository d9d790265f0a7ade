"""Heartbeats: the process of every slot is asked now and then whether it lives, and given up when silent."""

import logging
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future

from ray.exceptions import ActorUnavailableError

from raystream.clock import Clock
from raystream.cluster.incarnation import Incarnation
from raystream.cluster.vitals import Heartbeat
from raystream.config.options import HeartbeatConfig

logger = logging.getLogger(__name__)


class Heartbeats:
    """Asks processes; all methods on the owner's thread.

    Args:
        config: how often they are asked, and how long they may be silent.
        clock: measures both.
        ask: asks a process and hands the answer to a function, which may be never.
        silent: told of a process that has not answered for so many ms.
        failed: told of one that answers with an error.
    """

    def __init__(
        self,
        config: HeartbeatConfig,
        clock: Clock,
        *,
        ask: Callable[[Incarnation, Callable[[Incarnation, "Future[Heartbeat]"], None]], None],
        silent: Callable[[Incarnation, float], None],
        failed: Callable[[Incarnation, BaseException], None],
    ) -> None:
        self._config = config
        self._clock = clock
        self._ask = ask
        self._silent = silent
        self._failed = failed

    def await_first(self, worker: Incarnation) -> None:
        """Give a process that is there the time of a heartbeat for its first answer."""
        worker.silent_ms = self._clock.monotonic_ms()

    def begin(self, worker: Incarnation) -> None:
        """Ask a process from now on, while it is among those that `step` is called with."""
        worker.silent_ms = None
        self._ask_later(worker)

    def _ask_later(self, worker: Incarnation) -> None:
        worker.ping_ms = self._clock.monotonic_ms() + self._config.interval_ms

    def step(self, workers: Collection[Incarnation]) -> None:
        """Ask those that are due, and give up those that are silent."""
        now_ms = self._clock.monotonic_ms()
        for worker in workers:
            if worker.silent_ms is not None and now_ms >= worker.silent_ms + self._config.timeout_ms:
                self._silent(worker, now_ms - worker.silent_ms)
            elif worker.ping_ms is not None and now_ms >= worker.ping_ms:
                worker.ping_ms = None
                worker.silent_ms = now_ms if worker.silent_ms is None else worker.silent_ms
                self._ask(worker, self._heard)

    def deadlines_ms(self, workers: Collection[Incarnation]) -> Iterator[float | None]:
        """Return when `step` next has something to do, monotonic; None for nothing."""
        for worker in workers:
            yield worker.ping_ms
            if worker.silent_ms is not None:
                yield worker.silent_ms + self._config.timeout_ms

    def _heard(self, worker: Incarnation, answer: "Future[Heartbeat]") -> None:
        error = answer.exception()
        self._ask_later(worker)
        if isinstance(error, ActorUnavailableError):
            return  # A suspicion only; the time-out runs on.
        if error is not None:
            self._failed(worker, error)
            return
        worker.silent_ms = None
        heartbeat = answer.result()
        if heartbeat.stack and not (worker.heartbeat and worker.heartbeat.stack):
            where = {"slot": worker.slot, "held_ms": round(heartbeat.held_ms)}
            logger.warning("loop of a slot is held up, in\n%s", heartbeat.stack.rstrip(), extra=where)
        worker.heartbeat = heartbeat
