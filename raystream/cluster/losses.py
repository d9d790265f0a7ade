"""From what Ray says about a dead actor to a `SlotLostError` that tells a person what to do.

The only place that reads Ray's messages.  They are text for people and may change: they
choose words here and decide nothing.  What decides is the kind of an error, and it says what Ray's
head has written down, which is not always what the process does (`raystream.cluster.endings`).
"""

import re
from concurrent.futures import Future
from typing import Any

from ray.exceptions import ActorDiedError, ActorUnavailableError, OutOfMemoryError, RayTaskError

from raystream.cluster.endings import Answer
from raystream.cluster.worker import WorkerInfo
from raystream.errors import RaystreamError, SlotLostError
from raystream.ids import SlotId

_NOISE = re.compile(
    r"The actor died unexpectedly before finishing this task\."
    r"|^\s*(?:class_name|actor_id|pid|name|namespace|ip):.*$"
    r"|The actor is dead because "
    r"|Some common causes include: .*$",
    re.MULTILINE,
)
_CAUSE_CHARS_MAX = 300


def slot_lost(slot: SlotId, info: WorkerInfo | None, error: BaseException) -> RaystreamError:
    """Return why a slot is lost.

    Args:
        slot: the slot.
        info: where it ran; None when it never answered.
        error: what a call to its actor raised.
    """
    cause = error.cause if isinstance(error, RayTaskError) else error
    if isinstance(cause, RaystreamError):
        return cause
    message, hint = _explained(error)
    return SlotLostError(message, hint=hint, slot=slot, **place(info), cause=_in_short(str(error)))


def answer_of(call: "Future[Any]") -> Answer:
    """Return what a call to an actor that is to die shows of it.

    An actor is gone when Ray's head says so: because its process or its node has ended, or because
    Ray was told to kill it, and then the process may still run for some seconds.
    """
    error = call.exception()
    if error is None:
        return Answer.SILENT if call.result() is True else Answer.LIVES
    return Answer.LIVES if isinstance(error, (ActorUnavailableError, RayTaskError)) else Answer.GONE


def slot_silent(slot: SlotId, info: WorkerInfo | None, silent_ms: float) -> SlotLostError:
    """Return that a slot was given up because it no longer answers."""
    return SlotLostError(
        "process of a slot did not answer and was given up",
        hint="its node may be unreachable or overloaded; heartbeat.timeout sets how long to wait",
        slot=slot,
        **place(info),
        silent_s=round(silent_ms / 1000),
    )


def not_reserved(slot: SlotId, error: Exception) -> SlotLostError:
    """Return that nothing could be reserved for a slot."""
    return SlotLostError("room for a slot could not be asked for", slot=slot, cause=_in_short(str(error)))


def place(info: WorkerInfo | None) -> dict[str, Any]:
    """Return what an error says about where a slot ran."""
    return {} if info is None else {"node": info.node_ip, "pid": info.pid}


def _explained(error: BaseException) -> tuple[str, str]:
    """Return what happened and what to do about it."""
    text = str(error)
    if isinstance(error, OutOfMemoryError):
        return (
            "process of a slot was killed because the node ran out of memory",
            "run fewer slots on a node, keep less state in each slot, or take nodes with more memory",
        )
    if "No module named 'raystream" in text:
        return (
            "process of a slot could not start: raystream is not installed on its node",
            "install the same version of raystream on every node of the cluster",
        )
    if isinstance(error, ActorDiedError) and error.actor_init_failed:
        return "process of a slot could not start", ""
    if "node has died" in text:
        return "node of a slot is gone", ""
    if "SYSTEM_ERROR" in text:
        return (
            "process of a slot was killed or crashed",
            "if nobody killed it, the system may have, for want of memory: its log says so (dmesg)",
        )
    return "process of a slot is gone", ""


def _in_short(text: str) -> str:
    """Return the part of Ray's message that says something, on one line."""
    said = " ".join(_NOISE.sub("", text).split())
    return said if len(said) <= _CAUSE_CHARS_MAX else f"{said[:_CAUSE_CHARS_MAX]}..."
