"""One process of a slot, as the job master sees it, and who is told what becomes of it."""

from dataclasses import dataclass, field
from typing import Any, Protocol

from raystream.cluster.vitals import Heartbeat
from raystream.cluster.worker import WorkerInfo
from raystream.errors import RaystreamError
from raystream.ids import SlotId
from raystream.runtime.messages import Command


class SlotListener(Protocol):
    """Who is told what becomes of slots; the coordinator."""

    def slot_acquired(self, slot: SlotId) -> None:
        """The slot takes commands."""

    def slot_lost(self, slot: SlotId, error: RaystreamError) -> None:
        """The slot is gone."""

    def slots_leave(self, slots: tuple[SlotId, ...]) -> None:
        """The nodes of slots are about to go, and other processes stand by; said while it is so."""


@dataclass(eq=False, kw_only=True)
class Incarnation:
    """One incarnation of a slot."""

    slot: SlotId
    incarnation: int
    actor: Any = None
    """None until something is reserved for it."""
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
    heir: "Incarnation | None" = None
    """The spare that works in its stead when nothing is left of it, with what it has reserved."""
    spare_on: str = ""
    """The node on which its process was there before it got the slot; empty for one that was not."""
