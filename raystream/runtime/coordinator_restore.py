"""What each subtask of a program reads back from a snapshot, or why the snapshot does not fit.

Operators are matched by uid.  Keyed state follows its key groups, operator state its mode of
redistribution (`raystream.protocol.redistribution`).  Where a program sets another max parallelism than
the stored one, keys go by their hash, and every subtask reads more than it keeps.  Everything that does
not fit is found here, before a slot is deployed, and reported at once; what only the operators
themselves know (kinds and serializers of their states) is found when they open
(`raystream.runtime.restored_states`).

Pure: reads a plan and `_metadata`, no files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from raystream.errors import StateRestoreError
from raystream.graph.physical import OperatorNode, PhysicalPlan, Vertex
from raystream.ids import CheckpointId, OperatorUid, VertexId
from raystream.keygroup import groups_of_subtask
from raystream.protocol.redistribution import holding, redistribute
from raystream.runtime.in_flight_restore import in_flight_problems, restore_in_flight, targets_of
from raystream.runtime.messages import OperatorRestore, OperatorStateSlice, SubtaskRestore
from raystream.runtime.restored_states import RestoredState, table
from raystream.state.registry import Verdict
from raystream.state.serializer import PICKLE_ID
from raystream.storage.metadata import OperatorMetadata, SnapshotMetadata


@dataclass(frozen=True, slots=True, kw_only=True)
class Restore:
    """A snapshot as a plan restores it."""

    checkpoint_id: CheckpointId
    plan: PhysicalPlan
    """The program's plan, with the snapshot's max parallelism where the program does not say one."""
    subtasks: Mapping[tuple[VertexId, int], SubtaskRestore] = field(default_factory=dict)
    """What there is to restore; a subtask that restores nothing is left out."""
    enumerators: Mapping[OperatorUid, bytes] = field(default_factory=dict)
    gone: tuple[RestoredState, ...] = ()
    """The state of operators that the program does not have, which is dropped."""
    ended: frozenset[VertexId] = frozenset()
    """Vertices that do not run again, since all their operators and all that send to them had ended."""


def plan_restore(
    plan: PhysicalPlan,
    directory: str,
    metadata: SnapshotMetadata,
    *,
    allow_non_restored: bool,
    own: bool = False,
) -> Restore:
    """Return what a program restores from a snapshot.

    Args:
        plan: the program.
        directory: URL of the snapshot's directory; empty for one in the job master's memory.
        metadata: its content.
        allow_non_restored: drop the state of operators that the program does not have.
        own: it is a checkpoint of this job.

    Raises:
        StateRestoreError: it does not fit; the message has everything that does not, as a table.
    """
    problems: list[str] = []
    vertices = tuple(_with_stored_groups(vertex, metadata, problems) for vertex in plan.vertices)
    missing = _missing(plan, metadata)
    problems += in_flight_problems(plan, metadata)
    if missing and not allow_non_restored:
        shown = table(_operators(plan, metadata, missing))
        problems.append(f"state of {len(missing)} operator(s) is not in the program:\n{shown}")
    if problems:
        raise StateRestoreError(
            "snapshot does not fit the program: " + "\n".join(problems),
            hint=_advice(
                missing=bool(missing) and not allow_non_restored,
                foreign=1 < len(missing) == sum(operator.stateful for operator in metadata.operators),
            ),
            snapshot=directory or f"checkpoint {metadata.checkpoint_id}",
            job=metadata.job_name,
        )
    subtasks = {
        (vertex.id, subtask): restore
        for vertex in vertices
        for subtask, restore in _restore_vertex(plan, vertex, directory, metadata, own=own).items()
    }
    return Restore(
        checkpoint_id=metadata.checkpoint_id,
        plan=replace(plan, vertices=vertices),
        subtasks=subtasks,
        enumerators=dict(metadata.enumerators),
        gone=tuple(_of_operator(Verdict.MISSING, operator) for operator in missing),
        ended=_ended(plan, metadata),
    )


def pickled_elsewhere(metadata: SnapshotMetadata, python_version: str) -> list[str]:
    """Return the states whose pickled values another minor version of Python wrote, as operator and name.

    Args:
        metadata: the snapshot.
        python_version: the version that runs.
    """
    if metadata.python_version.split(".")[:2] in ([""], python_version.split(".")[:2]):
        return []
    return [
        f"{operator.name}: {state.name}"
        for operator in metadata.operators
        for state in operator.states
        if state.serializer == PICKLE_ID
    ]


def dealt_anew(plan: PhysicalPlan, metadata: SnapshotMetadata) -> list[tuple[Vertex, OperatorMetadata]]:
    """Return the keyed operators that restore state of another max parallelism, with what is stored of them.

    Args:
        plan: of a `Restore`.
        metadata: the snapshot.
    """
    stored = ((vertex, metadata.operator(node.uid)) for vertex in plan.vertices for node in vertex.operators)
    return [
        (vertex, operator)
        for vertex, operator in stored
        if operator is not None and _keyed(operator) and operator.max_parallelism != vertex.max_parallelism
    ]


def _ended(plan: PhysicalPlan, metadata: SnapshotMetadata) -> frozenset[VertexId]:
    """Return the vertices that do not run again; one with an operator or an input that is new does."""
    had_ended = {operator.uid for operator in metadata.operators if operator.ended}
    ended = {v.id for v in plan.vertices if all(node.uid in had_ended for node in v.operators)}
    while running := {edge.target for edge in plan.edges if edge.source not in ended} & ended:
        ended -= running
    return frozenset(ended)


# ---- key groups ---------------------------------------------------------------


def _with_stored_groups(vertex: Vertex, metadata: SnapshotMetadata, problems: list[str]) -> Vertex:
    """Return the vertex with the max parallelism of its stored keyed state, unless it has its own."""
    head = vertex.operators[0]
    stored = metadata.operator(head.uid)
    if not vertex.keyed or stored is None or not _keyed(stored) or vertex.max_parallelism_explicit:
        return vertex
    if vertex.parallelism > stored.max_parallelism:
        problems.append(
            f"operator {head.name!r} (uid {head.uid!r}) has parallelism {vertex.parallelism}, above the"
            f" max parallelism {stored.max_parallelism} of its state"
        )
    return replace(vertex, max_parallelism=stored.max_parallelism)


def _keyed(operator: OperatorMetadata) -> bool:
    return any(subtask.keyed for subtask in operator.subtasks)


# ---- handles ------------------------------------------------------------------


def _restore_vertex(
    plan: PhysicalPlan, vertex: Vertex, directory: str, metadata: SnapshotMetadata, *, own: bool
) -> dict[int, SubtaskRestore]:
    restores: dict[int, SubtaskRestore] = {}
    for node in vertex.operators:
        stored = metadata.operator(node.uid)
        if stored is None:
            continue
        in_flight = restore_in_flight(plan, vertex, node, stored, metadata)
        if stored.stateful or any(in_flight):
            for subtask, restore in enumerate(_restore_operator(vertex, directory, stored)):
                restores.setdefault(subtask, {})[node.uid] = replace(
                    restore, own=own, channels=in_flight[subtask]
                )
    return restores


def _restore_operator(vertex: Vertex, directory: str, stored: OperatorMetadata) -> list[OperatorRestore]:
    """Return what each new subtask of one operator reads."""
    keyed = [handle for subtask in stored.subtasks for handle in subtask.keyed]
    elements = redistribute([subtask.operator for subtask in stored.subtasks], vertex.parallelism)
    return [
        OperatorRestore(
            directory=directory,
            states=stored.states,
            keyed=tuple(
                holding(
                    keyed,
                    groups_of_subtask(subtask, vertex.max_parallelism, vertex.parallelism),
                    stored_max_parallelism=stored.max_parallelism,
                    max_parallelism=vertex.max_parallelism,
                )
            ),
            operator=tuple(
                OperatorStateSlice(handle=part.handle, start=part.start, stop=part.stop)
                for part in elements[subtask]
            ),
        )
        for subtask in range(vertex.parallelism)
    ]


# ---- what does not fit ----------------------------------------------------------


def _nodes(plan: PhysicalPlan) -> dict[OperatorUid, OperatorNode]:
    return {node.uid: node for vertex in plan.vertices for node in vertex.operators}


def _missing(plan: PhysicalPlan, metadata: SnapshotMetadata) -> list[OperatorMetadata]:
    """Return the operators that have state in the snapshot and are not in the program."""
    nodes, targets = _nodes(plan), targets_of(metadata)
    return [
        operator
        for operator in metadata.operators
        if (operator.stateful or operator.uid in targets) and operator.uid not in nodes
    ]


def _operators(
    plan: PhysicalPlan, metadata: SnapshotMetadata, missing: Sequence[OperatorMetadata]
) -> list[RestoredState]:
    """Return all operators with state: matched, new and missing ones."""
    nodes = _nodes(plan)
    stored = [operator for operator in metadata.operators if operator.stateful and operator.uid in nodes]
    new = [node for uid, node in nodes.items() if node.stateful and not _stored(metadata, uid)]
    return [
        *(_of_operator(Verdict.MATCHED, operator) for operator in stored),
        *(RestoredState(verdict=Verdict.NEW, uid=node.uid, operator=node.name, state="") for node in new),
        *(_of_operator(Verdict.MISSING, operator) for operator in missing),
    ]


def _of_operator(verdict: Verdict, operator: OperatorMetadata) -> RestoredState:
    return RestoredState(
        verdict=verdict,
        uid=operator.uid,
        operator=operator.name,
        state=", ".join(dict.fromkeys(state.name for state in operator.states)),
        size_bytes=operator.size_bytes,
    )


def _stored(metadata: SnapshotMetadata, uid: OperatorUid) -> bool:
    operator = metadata.operator(uid)
    return operator is not None and operator.stateful


def _advice(*, missing: bool, foreign: bool) -> str:
    """Return what to do about it.

    Args:
        missing: the program lacks operators of the snapshot.
        foreign: it lacks all of them, and they are several: a single one has rather been renamed.
    """
    if missing and foreign:
        return "none of its operators is in the program: give a snapshot of the same program, or its uids"
    if missing:
        return "give operators the uids they had, or drop this state with --allow-non-restored-state"
    return "lower the parallelism, or set a max parallelism: keys are then dealt out anew when they are read"
