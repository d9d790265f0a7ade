"""Where the time of a checkpoint went, subtask by subtask, and in one line what held it up.

    trigger --start delay--> first barrier --alignment--> last barrier --sync--> --async--> acknowledged

The slowest subtask is not always the one to blame: a barrier that arrives late was passed on late, or has
stood behind records in a queue.  So the line names the subtask upstream that had passed its barrier on last,
or else says that the queue was long.

Knows the plan and what the subtasks measured; knows nothing of machines.
"""

from collections.abc import Iterable, Sequence

from raystream.errors import RaystreamError
from raystream.graph.physical import Partitioning, PhysicalPlan
from raystream.handles import SubtaskSnapshot
from raystream.protocol.subtasks import Subtask
from raystream.storage.archive import SubtaskRecord

_SHARE_MIN = 0.5
"""Share of a delay that a subtask upstream must have had when the barrier left it, to be the cause."""
_WAITED_SHOWN_MAX = 3


def subtask_records(plan: PhysicalPlan, snapshots: Iterable[SubtaskSnapshot]) -> tuple[SubtaskRecord, ...]:
    """Return what subtasks measured, slowest first."""
    records = [
        SubtaskRecord(
            vertex=snapshot.vertex,
            name=plan.vertices[snapshot.vertex].name,
            subtask=snapshot.subtask,
            parallelism=plan.vertices[snapshot.vertex].parallelism,
            size_bytes=snapshot.size_bytes,
            start_delay_ms=round(snapshot.start_delay_ms, 3),
            alignment_ms=round(snapshot.alignment_ms, 3),
            sync_ms=round(snapshot.sync_ms, 3),
            async_ms=round(snapshot.async_ms, 3),
            in_flight_bytes=snapshot.in_flight_bytes,
        )
        for snapshot in snapshots
    ]
    return tuple(sorted(records, key=lambda record: (-record.total_ms, record.vertex, record.subtask)))


def label(plan: PhysicalPlan, subtask: Subtask) -> str:
    """Return what a subtask is called, `count hits 3/4`."""
    vertex = plan.vertices[subtask[0]]
    return f"{vertex.name} {subtask[1] + 1}/{vertex.parallelism}"


def held_up_by(plan: PhysicalPlan, records: Sequence[SubtaskRecord]) -> str:
    """Return what the slowest subtask has spent its time with, and why; empty when there is none.

    Args:
        plan: what the subtasks belong to.
        records: of all subtasks, slowest first.
    """
    if not records:
        return ""
    slowest = records[0]
    parts = {
        "start delay": slowest.start_delay_ms,
        "alignment": slowest.alignment_ms,
        "synchronous part": slowest.sync_ms,
        "asynchronous part": slowest.async_ms,
    }
    part = max(parts, key=parts.__getitem__)
    spent = f"{slowest.label}: {part} {_seconds(parts[part])} of {_seconds(slowest.total_ms)}"
    match part:
        case "start delay" | "alignment":
            return f"{spent}: {_why_late(plan, records, slowest)}"
        case "synchronous part":
            return f"{spent}: its slot froze state or pre-committed, and processed no record meanwhile"
        case _:
            return f"{spent}: {slowest.size_bytes:,} bytes of state were stored"


def master_delay(records: Sequence[SubtaskRecord], duration_ms: float) -> str:
    """Return what to say when most of the time passed behind the last acknowledgement; else nothing."""
    if not records or duration_ms < 2 * records[0].total_ms:
        return ""
    rest_ms = duration_ms - records[0].total_ms
    return f"job master: {_seconds(rest_ms)} of {_seconds(duration_ms)} for the metadata and the log entry"


def waited_for(plan: PhysicalPlan, missing: Sequence[Subtask]) -> str:
    """Return who kept a checkpoint from completing: those behind whom nobody else was waited for."""
    late = set(missing)
    first = [one for one in missing if not late.intersection(_upstream(plan, one))]
    shown = ", ".join(label(plan, one) for one in first[:_WAITED_SHOWN_MAX])
    more = len(missing) - len(first[:_WAITED_SHOWN_MAX])
    others = f" and {more} more, most of them behind it" if more else ""
    return f"{shown}{others} had not acknowledged"


def failure_text(plan: PhysicalPlan, reason: str, error: RaystreamError) -> str:
    """Return why a checkpoint failed, with the subtask whose fault it was, if it was one's."""
    text = f"{reason}: {error.brief}"
    vertex, subtask = error.context.get("vertex"), error.context.get("subtask")
    if vertex is None or subtask is None:
        return text
    return f"{text} ({label(plan, (vertex, subtask))})"


def _why_late(plan: PhysicalPlan, records: Sequence[SubtaskRecord], late: SubtaskRecord) -> str:
    """Return why barriers reached a subtask late."""
    by_subtask = {(record.vertex, record.subtask): record for record in records}
    cause = late
    while senders := [by_subtask[one] for one in _upstream(plan, (cause.vertex, cause.subtask))]:
        last = max(senders, key=lambda record: record.passed_ms)
        if last.passed_ms < _SHARE_MIN * cause.passed_ms:
            break
        cause = last
    if not _upstream(plan, (cause.vertex, cause.subtask)):
        return f"{'it' if cause is late else f'input of {cause.label}'} is behind: its slot was busy"
    if cause is not late:
        return f"input of {cause.label} is behind"
    return "records stood before the barrier: it is slower than its input, or what it sends to is"


def _upstream(plan: PhysicalPlan, subtask: tuple[int, int]) -> list[tuple[int, int]]:
    """Return who sends to a subtask."""
    found: list[tuple[int, int]] = []
    for edge in plan.edges:
        if edge.target == subtask[0]:
            one_to_one = edge.partitioning is Partitioning.FORWARD
            senders = [subtask[1]] if one_to_one else range(plan.vertices[edge.source].parallelism)
            found += [(edge.source, sender) for sender in senders]
    return found


def _seconds(duration_ms: float) -> str:
    return f"{duration_ms / 1_000:.1f} s" if duration_ms >= 1_000 else f"{duration_ms:.0f} ms"
