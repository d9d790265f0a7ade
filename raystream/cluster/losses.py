"""From what Ray says about a dead actor to a `SlotLostError` that tells a person what to do.

The only place that reads Ray's messages.  They are text for people and may change, so a cause
that is not recognised is shown as Ray put it, and nothing is decided by it.
"""

import re

from ray.exceptions import ActorDiedError, OutOfMemoryError, RayError, RayTaskError

from raystream.cluster.worker import WorkerInfo
from raystream.errors import RaystreamError, SlotLostError
from raystream.ids import SlotId

_OUT_OF_MEMORY = re.compile(r"out of memory|OutOfMemory|low on memory|\bOOM\b")
_KILLED = re.compile(r"SIGKILL|connection error code 2|End of file")
_NODE = re.compile(
    r"node (?:has )?(?:died|was terminated|is dead|failed)|NODE_DIED|node.{0,80}has failed", re.IGNORECASE
)
_NOT_INSTALLED = re.compile(r"No module named '?raystream")
_CAUSE_CHARS_MAX = 400

_MEMORY_HINT = "give the job fewer slots per node or nodes with more memory"


def slot_lost(slot: SlotId, info: WorkerInfo | None, error: BaseException) -> RaystreamError:
    """Return why a slot is lost.

    Args:
        slot: the slot.
        info: where it ran; None when it never answered.
        error: what a call to its actor raised.
    """
    if isinstance(error, RayTaskError) and isinstance(error.cause, RaystreamError):
        return error.cause
    if isinstance(error, RaystreamError):
        return error
    message, hint = _explained(error)
    where = {} if info is None else {"node": info.node_ip, "pid": info.pid}
    return SlotLostError(message, hint=hint, slot=slot, **where, cause=_in_short(str(error)))


def slot_silent(slot: SlotId, info: WorkerInfo | None, silent_ms: float) -> SlotLostError:
    """Return that a slot was given up because it no longer answers."""
    where = {} if info is None else {"node": info.node_ip, "pid": info.pid}
    return SlotLostError(
        "process of a slot did not answer and was given up",
        hint="its node may be unreachable or overloaded; heartbeat.timeout sets how long to wait",
        slot=slot,
        **where,
        silent_s=round(silent_ms / 1000),
    )


def _explained(error: BaseException) -> tuple[str, str]:
    """Return what happened and what to do about it."""
    text = str(error)
    if isinstance(error, OutOfMemoryError) or _OUT_OF_MEMORY.search(text.split("or (", maxsplit=1)[0]):
        return "process of a slot was killed because the node ran out of memory", _MEMORY_HINT
    if isinstance(error, ActorDiedError) and error.actor_init_failed:
        if _NOT_INSTALLED.search(text):
            return (
                "process of a slot could not start: raystream is not installed there",
                "install the same version of raystream on every node of the cluster",
            )
        return "process of a slot could not start", ""
    if _NODE.search(text):
        return "node of a slot is gone", ""
    if _KILLED.search(text):
        return (
            "process of a slot was killed",
            "if nobody killed it, the system may have, for want of memory: its log says so (dmesg)",
        )
    if isinstance(error, RayError):
        return "process of a slot is gone", ""
    return "process of a slot failed", ""


def _in_short(text: str) -> str:
    """Return the lines that say something, on one line and cut."""
    lines = [line.strip() for line in text.splitlines()]
    said = [
        line for line in lines if line and not line.startswith(("class_name:", "actor_id:", "namespace:"))
    ]
    joined = " ".join(said)
    return joined if len(joined) <= _CAUSE_CHARS_MAX else f"{joined[:_CAUSE_CHARS_MAX]}..."
