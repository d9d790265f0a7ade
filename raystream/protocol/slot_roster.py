"""Where each slot of a job stands, from the coordinator's side.

                 acquire           deploy             deployed          connect            ready
    ABSENT --------------> WANTED --> IDLE --> DEPLOYING --> DEPLOYED --> CONNECTING --> READY
      ^                      |          ^          |             |             |           |
      |                      |          |          +-------------+-- stop -----+-----------+
      |                      |          |                               v
      +------ lost ----------+          +---------- stopped -------- STOPPING
      (from everywhere)

A slot that is IDLE or further belongs to the job; an attempt leaves it IDLE for the next one.
Knows states; what to do about them is decided by `raystream.protocol.job`.
"""

from collections.abc import Iterable
from dataclasses import replace
from enum import Enum

from raystream.errors import ProtocolError
from raystream.ids import SlotId
from raystream.protocol.rescale import RestartRescaled
from raystream.protocol.subtasks import JobShape

KILL_RETRY_MS = 10_000.0
"""Time after which the death of a slot that was to be killed is asked for again."""


class SlotState(Enum):
    """What a slot does."""

    ABSENT = "absent"
    WANTED = "wanted"
    IDLE = "idle"
    DEPLOYING = "deploying"
    DEPLOYED = "deployed"
    CONNECTING = "connecting"
    READY = "ready"
    STOPPING = "stopping"


_BUSY = (SlotState.DEPLOYING, SlotState.DEPLOYED, SlotState.CONNECTING, SlotState.READY)

_TRANSITIONS: dict[SlotState, frozenset[SlotState]] = {
    SlotState.ABSENT: frozenset({SlotState.WANTED}),
    SlotState.WANTED: frozenset({SlotState.IDLE, SlotState.ABSENT}),
    SlotState.IDLE: frozenset({SlotState.DEPLOYING, SlotState.ABSENT}),
    SlotState.DEPLOYING: frozenset({SlotState.DEPLOYED, SlotState.STOPPING, SlotState.ABSENT}),
    SlotState.DEPLOYED: frozenset({SlotState.CONNECTING, SlotState.STOPPING, SlotState.ABSENT}),
    SlotState.CONNECTING: frozenset({SlotState.READY, SlotState.STOPPING, SlotState.ABSENT}),
    SlotState.READY: frozenset({SlotState.STOPPING, SlotState.ABSENT}),
    SlotState.STOPPING: frozenset({SlotState.IDLE, SlotState.ABSENT}),
}


class SlotRoster:
    """The states of some slots."""

    def __init__(self, slots: Iterable[SlotId]) -> None:
        self._states = dict.fromkeys(slots, SlotState.ABSENT)
        assert self._states, "a job has slots"
        self._addresses: dict[SlotId, str] = {}
        self._reshape: RestartRescaled | None = None
        self._kill_ms = 0.0  # When slots that stop are to be killed.
        self._killed = False  # They were.

    @property
    def waiting_for(self) -> str:
        """Which slots are asked for and not there, for people; empty when none is."""
        wanted = len(self.slots(SlotState.WANTED))
        return f"{wanted} of {len(self._states)} slots" if wanted else ""

    @property
    def kill_ms(self) -> float | None:
        """When slots that have not stopped are to be killed; None when all have."""
        return self._kill_ms if self.slots(SlotState.STOPPING) else None

    @property
    def addresses(self) -> dict[SlotId, str]:
        """Where each slot listens for its peers, as it has said last."""
        return dict(self._addresses)

    def reshape_next(self, rescaled: RestartRescaled) -> None:
        """Have other slots from the next `reshape` on; the further ones may be lost before."""
        self._reshape = rescaled

    def reshape(self) -> tuple[JobShape, tuple[SlotId, ...]] | None:
        """Change which slots there are, while none is busy, if that was asked for.

        Returns:
            The new shape, and the slots whose processes are given up.
        """
        rescaled, self._reshape = self._reshape, None
        if rescaled is None:
            return None
        assert not self.slots(*_BUSY, SlotState.STOPPING), "a slot is busy"
        there = dict.fromkeys(rescaled.slots, SlotState.IDLE)
        before = self._states
        self._states = {
            slot: before.get(slot) or there.get(slot, SlotState.ABSENT) for slot in rescaled.shape.slots
        }
        dropped = [slot for slot in before if slot not in self._states]
        for slot in rescaled.leaving:
            if self.state(slot) is SlotState.IDLE:  # Else it has lost its process meanwhile.
                self._states[slot] = SlotState.ABSENT
                dropped.append(slot)
        self._addresses = {slot: where for slot, where in self._addresses.items() if slot in self._states}
        return rescaled.shape, tuple(dropped)

    def has(self, slot: SlotId) -> bool:
        """Return whether the job has this slot now."""
        return slot in self._states

    def state(self, slot: SlotId) -> SlotState:
        """Return what a slot does; one that the job does not have is absent."""
        return self._states.get(slot, SlotState.ABSENT)

    def slots(self, *states: SlotState) -> tuple[SlotId, ...]:
        """Return the slots in any of these states, in order."""
        return tuple(slot for slot, state in self._states.items() if state in states)

    def all_in(self, state: SlotState) -> bool:
        """True when every slot is in this state."""
        return all(actual is state for actual in self._states.values())

    def move(self, slot: SlotId, state: SlotState) -> None:
        """Change the state of a slot.

        Raises:
            ProtocolError: no such transition.
        """
        if state not in _TRANSITIONS[self._states[slot]]:
            raise ProtocolError(
                "slot can not change to this state", slot=slot, old=self._states[slot].value, new=state.value
            )
        self._states[slot] = state

    def move_all(self, old: SlotState, new: SlotState) -> tuple[SlotId, ...]:
        """Change the state of all slots in `old`, and return them in order."""
        moved = self.slots(old)
        for slot in moved:
            self.move(slot, new)
        return moved

    def deployed(self, slot: SlotId, address: str) -> None:
        """The subtasks of a slot exist, and it listens at this address."""
        self.move(slot, SlotState.DEPLOYED)
        self._addresses[slot] = address

    def stop_busy(self, kill_ms: float) -> tuple[SlotId, ...]:
        """Change all slots that were told to deploy to STOPPING until then, and return them in order."""
        self._kill_ms, self._killed = kill_ms, False
        moved = self.slots(*_BUSY)
        for slot in moved:
            self.move(slot, SlotState.STOPPING)
        return moved

    def overdue(self, now_ms: float) -> tuple[SlotId, ...]:
        """Return the slots that are to be killed now, and again after a while."""
        if self.kill_ms is None or now_ms < self.kill_ms:
            return ()
        self._kill_ms, self._killed = now_ms + KILL_RETRY_MS, True
        return self.slots(SlotState.STOPPING)

    def stops_by_itself(self, slot: SlotId) -> bool:
        """True while a slot stops and was not killed: its loss may be why the attempt has failed."""
        return self.state(slot) is SlotState.STOPPING and not self._killed

    def lost(self, slot: SlotId) -> bool:
        """The slot's process is gone or was not to be had; False when it had none."""
        if self._reshape is not None and slot in self._reshape.slots:
            further = tuple(other for other in self._reshape.slots if other != slot)
            self._reshape = replace(self._reshape, slots=further)
        if self.state(slot) is SlotState.ABSENT:
            return False
        self.move(slot, SlotState.ABSENT)
        return True
