"""Named placement groups: what the process of a slot reserves on a node, before it is there and after.

A group of Ray is reserved and given back as a whole, and a slot comes and goes alone: with a rescale,
with a node that drains, with a process that is lost.  So every process has a group of its own, of one
bundle, `raystream-<job id>-<slot>-<incarnation>`, which ends with it (ADR 0013).  Ray's autoscaler sees the
groups that find no room, and adds nodes for them.

Where a group goes is Ray's business when slots are spread: it takes the node with the most room.  Packed
slots name a node that they would like: one on which the job has slots, else the one with the most room.

Groups of a job master that has another life stay when it dies.  The next life finds them by their names,
and gives them to the slots that they were for; or removes them, if the job has ended.  Groups of one that has
none are removed by Ray when it dies.

Calls to Ray's head may hang, so they are made in threads.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from ray.util.placement_group import (
    PlacementGroup,
    get_placement_group,
    placement_group_table,
    remove_placement_group,
)

from raystream.cluster import _ray_compat as compat
from raystream.cluster.resources import Node, SlotNeeds, cluster_nodes, room_for
from raystream.ids import JobId, SlotId
from raystream.operators.operator import Background

logger = logging.getLogger(__name__)

REMOVE_TRIES_MAX = 12
"""Times that the groups of a job that ends are removed, until none is left; calls wait for an absent head."""

_CREATED, _REMOVED = "CREATED", "REMOVED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """Something to be reserved for one process of a slot."""

    slot: SlotId
    incarnation: int
    needs: SlotNeeds


Groups = dict[int, PlacementGroup]
"""Groups, which may still wait for room, by incarnation."""

Reserved = Callable[[Groups | Exception], None]
"""Takes the groups that were made, or why there are none."""


class Reservations:
    """Makes and removes the groups of a job; all methods on the owner's thread, and answered there.

    Args:
        job_id: the job.
        placement: whether slots go where the job has slots, or where there is most room.
        background: a thread for the calls; one, so that they keep their order.
        durable: the job master has another life when it dies.
        inherits: the job ran under a job master that has died, and its groups are still there.
    """

    def __init__(
        self,
        job_id: JobId,
        placement: Literal["pack", "spread"],
        background: Background,
        *,
        durable: bool = False,
        inherits: bool = False,
    ) -> None:
        self._prefix = f"raystream-{job_id}-"
        self._placement = placement
        self._background = background
        self._durable = durable
        # From here on the background's thread alone writes.
        self._inherits = inherits
        self._inherited: dict[SlotId, str] = {}
        self._surplus: list[str] = []  # Inherited, and wanted by nobody.
        self._groups: Groups = {}

    def reserve(self, wanted: Sequence[Reservation], used: Collection[str], reserved: Reserved) -> None:
        """Make groups; `reserved` gets those that need one, by incarnation, or why they are not to be had.

        Args:
            wanted: what for.
            used: nodes on which the job has slots.
            reserved: told once.
        """
        self._background.submit(partial(self._reserve, wanted, frozenset(used)), reserved)

    def release(self, incarnation: int) -> None:
        """Remove the group of a process that is gone, if it had one."""
        self._background.submit(partial(self._remove, incarnation), _warn)

    def hand_over(self, incarnation: int, heir: int) -> None:
        """Give the group of a process that is gone to another one on the same node."""
        self._background.submit(partial(self._hand_over, incarnation, heir), _warn)

    def placed(self) -> frozenset[int]:
        """Return the processes, by their numbers, whose groups have found room; blocks, in any thread."""
        groups = [*placement_group_table().values()]
        ready = {group["placement_group_id"] for group in groups if group["state"] == _CREATED}
        return frozenset(number for number, group in [*self._groups.items()] if group.id.hex() in ready)

    def close(self, closed: Callable[[], None] = lambda: None) -> None:
        """Remove all groups, and with them whatever still runs in one."""

        def done(result: Any) -> None:
            _warn(result)
            closed()

        self._background.submit(self._remove_all, done)

    # ---- in the background's thread ----------------------------------------------

    def _reserve(self, wanted: Sequence[Reservation], used: frozenset[str]) -> Groups:
        self._find_inherited()
        bundled = [one for one in wanted if one.needs.amounts]
        try:
            for one in bundled:
                self._take_over(one)
            self._remove_rest()
            fresh = [one for one in bundled if one.incarnation not in self._groups]
            for one, near in zip(fresh, self._near(fresh, used), strict=True):
                self._groups[one.incarnation] = compat.placement_group_of_one(
                    dict(one.needs.amounts),
                    name=f"{self._prefix}{one.slot}-{one.incarnation}",
                    labels=dict(one.needs.labels),
                    near=near,
                    detached=self._durable,
                )
        except BaseException:
            for one in bundled:
                _attempt(partial(self._remove, one.incarnation))
            raise
        return {one.incarnation: self._groups[one.incarnation] for one in bundled}

    def _near(self, wanted: Sequence[Reservation], used: frozenset[str]) -> Sequence[str | None]:
        if self._placement == "spread" or not wanted:
            return [None] * len(wanted)
        return packed([one.needs for one in wanted], cluster_nodes(), used)

    def _find_inherited(self) -> None:
        if not self._inherits:
            return
        found: list[tuple[bool, bool, str]] = []
        draining = compat.draining_nodes()
        for group in placement_group_table().values():
            if group["name"].startswith(self._prefix) and group["state"] != _REMOVED:
                goes = not draining.keys().isdisjoint(group["bundles_to_node_id"].values())
                found.append((group["state"] == _CREATED, not goes, group["name"]))
        # A slot that was leaving its node has two: the best one is that which has room on a node that stays.
        for *_, name in sorted(found):
            number, _, _ = name.removeprefix(self._prefix).partition("-")
            slot = SlotId(int(number))
            if slot in self._inherited:
                self._surplus.append(self._inherited[slot])
            self._inherited[slot] = name
        self._inherits = False

    def _take_over(self, one: Reservation) -> None:
        """Give a process the group that was for its slot under the job master before."""
        group = _find(self._inherited[one.slot]) if one.slot in self._inherited else None
        self._inherited.pop(one.slot, None)
        if group is not None:
            self._groups[one.incarnation] = group

    def _remove_rest(self) -> bool:
        """Remove inherited groups that nobody wants, and return whether none is left."""
        # All slots that the job has are wanted at once when they are wanted for the first time.
        self._surplus += self._inherited.values()
        self._inherited.clear()
        self._surplus = [name for name in self._surplus if not _attempt(partial(_remove_named, name))]
        return not self._surplus

    def _remove(self, incarnation: int) -> None:
        group = self._groups.get(incarnation)
        if group is not None:
            remove_placement_group(group)
            del self._groups[incarnation]

    def _hand_over(self, incarnation: int, heir: int) -> None:
        group = self._groups.pop(incarnation, None)
        if group is not None:
            self._groups[heir] = group

    def _remove_all(self) -> None:
        if not any(self._removed_all() for _ in range(REMOVE_TRIES_MAX)):
            logger.error("placement groups are left", extra={"groups": [*self._groups, *self._surplus]})

    def _removed_all(self) -> bool:
        """Remove what can be removed, and return whether nothing is left."""
        found = _attempt(self._find_inherited)
        rest = self._remove_rest()
        left = [one for one in [*self._groups] if not _attempt(partial(self._remove, one))]
        return found and rest and not left


def remove_groups(job_id: JobId) -> None:
    """Remove what a job has reserved under a job master that is gone, if it can be reached; blocks."""
    left = Reservations(job_id, "pack", _AtOnce(), inherits=True)
    left.close()


class _AtOnce:
    """Does its work at once."""

    def submit(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        result: Any
        try:
            result = work()
        except Exception as error:
            result = error
        done(result)


def packed(wanted: Sequence[SlotNeeds], nodes: Sequence[Node], used: Collection[str]) -> list[str | None]:
    """Return the node that each slot would like: few in all, those with slots of the job first.

    Args:
        wanted: what the slots reserve.
        nodes: of the cluster.
        used: nodes on which the job has slots.

    Example:
        >>> nodes = [Node(node_id=name, total={}, free={"CPU": cpus}) for name, cpus in [("a", 1), ("b", 2)]]
        >>> packed([SlotNeeds(group="default", amounts={"CPU": 1.0})] * 4, nodes, used=())
        ['b', 'b', 'a', None]
    """
    free = {node.node_id: dict(node.free) for node in nodes}
    taken = set(used)
    chosen: list[str | None] = []
    for needs in wanted:
        rooms = {
            node.node_id: room_for(needs, free[node.node_id], at_most=len(wanted))
            for node in nodes
            if node.fits(needs)
        }
        fitting = [node_id for node_id, room in rooms.items() if room]
        best = max(fitting, key=lambda node_id: (node_id in taken, rooms[node_id], node_id), default=None)
        chosen.append(best)
        if best is not None:
            taken.add(best)
            for name, amount in needs.amounts.items():
                free[best][name] = free[best].get(name, 0.0) - amount
    return chosen


def _find(name: str) -> PlacementGroup | None:
    """Return a group, or None when there is none any more; blocks."""
    try:
        group: PlacementGroup = get_placement_group(name)
    except ValueError:
        return None
    return group


def _remove_named(name: str) -> None:
    group = _find(name)
    if group is not None:
        remove_placement_group(group)


def _attempt(work: Callable[[], None]) -> bool:
    """Do something that may fail, and return whether it did not."""
    try:
        work()
    except Exception as error:
        _warn(error)
        return False
    return True


def _warn(result: Any) -> None:
    if isinstance(result, Exception):
        logger.warning("placement group may be left", exc_info=result)
