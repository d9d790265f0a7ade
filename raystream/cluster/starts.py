"""How a slot gets a process: it is numbered, what it needs is reserved, and its actor is started there.

    numbered --> reserved --> started
                    |  nobody wants it any more: what was reserved is given back

All of that may take long, or for ever, and nothing here waits for it.
"""

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from raystream.cluster import losses
from raystream.cluster.incarnation import Incarnation
from raystream.cluster.process import UNRECORDED
from raystream.cluster.reservations import Groups, Reservation, Reservations
from raystream.cluster.resources import Needs
from raystream.cluster.worker import SlotActor
from raystream.errors import RaystreamError
from raystream.ids import JobId, SlotId


class Starts:
    """Starts processes; all methods on the job master's thread.

    Args:
        job_id: the job.
        master: handle of the job master, for its workers.
        needs: what each slot reserves.
        reservations: reserve it.
        first_incarnation: numbers of processes go on above it.
        wanted: says whether a process is still wanted.
        started: told of one whose actor was made, and which may still wait for room.
        failed: told why nothing could be reserved for one.
    """

    def __init__(
        self,
        job_id: JobId,
        master: Any,
        *,
        needs: Needs,
        reservations: Reservations,
        first_incarnation: int,
        wanted: Callable[[Incarnation], bool],
        started: Callable[[Incarnation], None],
        failed: Callable[[Incarnation, RaystreamError], None],
    ) -> None:
        self._job_id = job_id
        self._master = master
        self._needs = needs
        self._reservations = reservations
        self._incarnations = first_incarnation
        self._wanted = wanted
        self._tell_started = started
        self._tell_failed = failed
        self._actor_class: Any = ray.remote(SlotActor)

    def number(self, slots: Sequence[SlotId]) -> list[Incarnation]:
        """Return a process to be for each slot, with a number that no other one has."""
        first = self._incarnations + 1
        self._incarnations += len(slots)
        return [Incarnation(slot=slot, incarnation=first + i) for i, slot in enumerate(slots)]

    def start(self, workers: Sequence[Incarnation], used: Collection[str]) -> None:
        """Start processes where there is room.

        Args:
            workers: what `number` has returned.
            used: nodes on which the job has slots.
        """
        wanted = [
            Reservation(slot=one.slot, incarnation=one.incarnation, needs=self._needs(one.slot))
            for one in workers
        ]
        if wanted:
            self._reservations.reserve(wanted, used, partial(self._reserved, workers))

    def spare(self, node_id: str) -> Any:
        """Return an actor without a slot, which starts on a node and reserves nothing."""
        there = NodeAffinitySchedulingStrategy(node_id, soft=False)
        return self._actor("spare", {"num_cpus": 0, "scheduling_strategy": there})

    def _reserved(self, workers: Sequence[Incarnation], groups: Groups | Exception) -> None:
        for worker in workers:
            if not self._wanted(worker):
                self._reservations.release(worker.incarnation)
            elif isinstance(groups, Exception):
                self._tell_failed(worker, losses.not_reserved(worker.slot, groups))
            else:
                self._start(worker, groups.get(worker.incarnation))

    def _start(self, worker: Incarnation, group: PlacementGroup | None) -> None:
        options = self._needs(worker.slot).actor_options
        if group is not None:
            options.pop("label_selector", None)  # The group has gone by it.
            options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(group, 0)
        worker.actor = self._actor(f"slot {worker.slot}", options)
        self._tell_started(worker)

    def _actor(self, name: str, options: dict[str, Any]) -> Any:
        actor_class = self._actor_class.options(**options, max_restarts=0, max_task_retries=0, **UNRECORDED)
        return actor_class.remote(self._job_id, name, self._master)
