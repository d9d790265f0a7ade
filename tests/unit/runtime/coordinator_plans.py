"""A job of a source and a keyed operator, and what its subtasks store, for scripted coordinators."""

from collections import deque

from raystream.graph.physical import OperatorNode, PhysicalPlan, Vertex
from raystream.handles import (
    InlineHandle,
    KeyedStateHandle,
    OperatorSnapshot,
    OperatorStateHandle,
    Redistribution,
    StateInfo,
    SubtaskSnapshot,
)
from raystream.ids import OperatorUid, VertexId
from raystream.keygroup import groups_of_subtask

HITS = StateInfo(name="hits", kind="value", serializer="msgpack-1", schema="int")


class FakeEnumerator:
    """Hands out what is left of a list of splits, one for each request."""

    def __init__(self, source, state):
        self.source = source
        self.discovery_interval_ms = source.discovery_interval_ms
        self.splits = [] if state is None else state.split()
        self.known = set(self.splits) if state is None else None

    def discover(self):
        if self.source.discoveries:
            found = self.source.discoveries.popleft()
            if isinstance(found, Exception):
                raise found
            return found
        return []

    def discovered(self, found):
        self.splits += found

    def next_splits(self, subtask):
        return [self.splits.pop(0)] if self.splits else []

    @property
    def exhausted(self):
        return self.discovery_interval_ms is None and not self.splits

    def snapshot(self):
        if self.source.snapshot_error is not None:
            raise self.source.snapshot_error
        return b" ".join(self.splits)


class FakeSource:
    bounded = True
    rewindable = True

    def __init__(self, discoveries=((b"s0", b"s1", b"s2"),), *, discovery_interval_ms=None):
        self.discoveries = deque(
            found if isinstance(found, Exception) else list(found) for found in discoveries
        )
        self.discovery_interval_ms = discovery_interval_ms
        self.snapshot_error = None
        self.made = []

    def enumerator(self, context, state):
        self.made.append((context, state))
        return FakeEnumerator(self, state)


def node(uid, *, source=None, stateful=True):
    return OperatorNode(
        uid=OperatorUid(uid),
        uid_generated=False,
        name=uid.upper(),
        factory=object,
        stateful=stateful,
        source=source,
    )


def make_plan(source, *, parallelism=2, max_parallelism=128, explicit=True, count_uid="count"):
    vertices = tuple(
        Vertex(
            id=VertexId(number),
            name=name,
            parallelism=parallelism,
            max_parallelism=max_parallelism,
            max_parallelism_explicit=explicit,
            slot_offset=0,
            operators=operators,
            keyed=keyed,
        )
        for number, (name, operators, keyed) in enumerate(
            [("read", (node("read", source=source),), False), ("count", (node(count_uid),), True)]
        )
    )
    return PhysicalPlan(vertices=vertices, edges=())


def make_snapshot(plan, vertex, subtask, checkpoint_id, *, data=None, shared=()):
    """Return what a subtask acknowledges: its splits, or a keyed state that names its checkpoint."""
    described = plan.vertices[vertex]
    uid = described.operators[0].uid
    if described.keyed:
        groups = groups_of_subtask(subtask, described.max_parallelism, described.parallelism)
        stored = data or InlineHandle(data=f"c{checkpoint_id}-{subtask}".encode())
        part = OperatorSnapshot(
            uid=uid,
            subtask=subtask,
            states=(HITS,),
            keyed=(KeyedStateHandle(groups=groups, entries=1, data=stored, shared=shared),),
        )
    else:
        splits = OperatorStateHandle(
            name="_splits", mode=Redistribution.SPLIT, element_count=1, data=InlineHandle(data=b"split")
        )
        part = OperatorSnapshot(uid=uid, subtask=subtask, operator=(splits,))
    return SubtaskSnapshot(vertex=VertexId(vertex), subtask=subtask, operators=(part,), sync_ms=1.0)
