"""The logical graph: what the user's calls said, one node per operator.

Nodes are added in the order of the calls and refer only to earlier ones, so the order of
their ids is topological and there are no cycles.  The graph knows nothing of slots,
chains or configuration defaults: a node holds None wherever the user said nothing, and
`raystream.graph.chaining` decides.

Calls such as `key_by`, `rebalance`, `union` and `connect` make no operator; they only say how
the next one is connected, which is what an `Upstream` records.
"""

import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, NewType, TypeGuard

from raystream.errors import GraphError
from raystream.graph.physical import Partitioner, Partitioning
from raystream.graph.slot_sharing import SlotSharingGroup

NodeId = NewType("NodeId", int)
"""Position of an operator in its logical graph, 0-based."""

UID_BYTES_MAX = 160
"""Longest uid, percent-encoded; a file of a sink has it in its name, and no name exceeds 255 bytes."""


class OperatorKind(Enum):
    """What an operator does."""

    SOURCE = "source"
    WATERMARKS = "watermarks"
    MAP = "map"
    FLAT_MAP = "flat-map"
    FILTER = "filter"
    PROCESS = "process"
    KEYED_PROCESS = "keyed-process"
    REDUCE = "reduce"
    AGGREGATE = "aggregate"
    SINK = "sink"
    CO_MAP = "co-map"
    CO_FLAT_MAP = "co-flat-map"
    CO_PROCESS = "co-process"
    KEYED_CO_PROCESS = "keyed-co-process"
    BROADCAST_PROCESS = "broadcast-process"
    KEYED_BROADCAST_PROCESS = "keyed-broadcast-process"

    @property
    def needs_key(self) -> bool:
        """True for operators that run on a keyed stream only."""
        return self in _KEYED

    @property
    def has_function(self) -> bool:
        """True for operators that call a function of the user's with each record."""
        return self not in _WITHOUT_FUNCTION

    @property
    def has_side_outputs(self) -> bool:
        """True for operators whose function may call `ctx.output`."""
        return self in _WITH_SIDE_OUTPUTS


_KEYED = {
    OperatorKind.KEYED_PROCESS,
    OperatorKind.REDUCE,
    OperatorKind.AGGREGATE,
    OperatorKind.KEYED_CO_PROCESS,
    OperatorKind.KEYED_BROADCAST_PROCESS,
}
_WITHOUT_FUNCTION = {OperatorKind.SOURCE, OperatorKind.WATERMARKS, OperatorKind.SINK}
_WITH_SIDE_OUTPUTS = {
    OperatorKind.PROCESS,
    OperatorKind.KEYED_PROCESS,
    OperatorKind.CO_PROCESS,
    OperatorKind.KEYED_CO_PROCESS,
    OperatorKind.BROADCAST_PROCESS,
    OperatorKind.KEYED_BROADCAST_PROCESS,
}


class ChainHint(Enum):
    """Whether an operator may share a chain with its neighbours."""

    ALWAYS = "always"
    """Fuse with the operator before it and those behind it wherever that is possible."""
    HEAD = "head"
    """Begin a new chain; operators behind it may join."""
    NEVER = "never"
    """Be a chain of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """One output that an operator reads, and how its records are to be distributed."""

    node: NodeId
    tag: str | None = None
    """Side output, None for the main output."""
    partitioning: Partitioning = Partitioning.FORWARD
    """FORWARD means that the user asked for no exchange."""
    key_selector: Callable[[Any], Any] | None = None
    """Set exactly when `partitioning` is HASH."""
    partitioner: Partitioner | None = None
    """Set exactly when `partitioning` is CUSTOM."""
    input: int = 0
    """The input of the operator that it enters, 0-based; outputs that are united enter one together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogicalNode:
    """One operator as the user declared it; None stands for a default."""

    id: NodeId
    kind: OperatorKind
    name: str
    factory: Callable[[], Any]
    """Makes the operator that runs; never called by the graph."""
    upstreams: tuple[Upstream, ...]
    """Outputs that it reads; none for a source, several after a `union` or a `connect`."""
    uid: str | None = None
    parallelism: int | None = None
    max_parallelism: int | None = None
    chain: ChainHint = ChainHint.ALWAYS
    slot_sharing_group: SlotSharingGroup | None = None
    """None: that of its inputs."""
    stateful: bool = False
    """True when the operator may register keyed or operator state."""
    transactional: bool = False
    """True for a sink whose output becomes visible by a commit, or that does not say how."""
    source: Any = None
    """The `Source` of a source operator, else None."""
    dead_letters: bool = False
    """True when records on which its function raises go to a side output, and do not fail the job."""

    @property
    def label(self) -> str:
        """Name and, where it was given, uid, as error messages show an operator."""
        return f"{self.name} (uid {self.uid})" if self.uid else self.name


class LogicalGraph:
    """The operators of one job, in the order in which they were declared."""

    def __init__(self) -> None:
        self._nodes: list[LogicalNode] = []
        self._submitted_as: str | None = None

    def __iter__(self) -> Iterator[LogicalNode]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    def __getitem__(self, node: NodeId) -> LogicalNode:
        return self._nodes[node]

    def next_id(self) -> NodeId:
        """Return the id that the next node must have."""
        return NodeId(len(self._nodes))

    def add(self, node: LogicalNode) -> None:
        """Append an operator.

        Raises:
            GraphError: the graph was submitted already, or the uid cannot be used.
        """
        if self._submitted_as is not None:
            raise GraphError(
                "operator added to a job that was submitted already",
                hint="build the next job from a new `env.from_source(...)`",
                operator=node.label,
                job=self._submitted_as,
            )
        assert node.id == self.next_id(), (node.id, self.next_id())
        assert all(upstream.node < node.id for upstream in node.upstreams), node
        if node.uid is not None:
            check_uid(node.uid, operator=node.name)
        self._nodes.append(node)

    def seal(self, job_name: str) -> None:
        """Refuse further operators: the graph now belongs to a submitted job."""
        self._submitted_as = job_name


def is_text(name: object) -> TypeGuard[str]:
    """Return whether something can be a name in a snapshot: a text that is not blank, and UTF-8."""
    if not isinstance(name, str) or not name.strip():
        return False
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_uid(uid: object, *, operator: str) -> None:
    """Check that an operator may have a uid.

    Raises:
        GraphError: it may not.
    """
    if not isinstance(uid, str) or not uid.strip():
        raise GraphError(
            "uid of an operator is not a text",
            hint='give a short name that stays the same between versions, uid="count-hits"',
            operator=operator,
            uid=uid,
        )
    try:
        size_bytes = len(urllib.parse.quote(uid, safe=""))
    except UnicodeEncodeError as error:
        raise GraphError("uid is not UTF-8 text", operator=operator, uid=ascii(uid)) from error
    if size_bytes > UID_BYTES_MAX:
        raise GraphError(
            "uid of an operator is too long",
            hint="file names hold it percent-encoded: 1 byte for an ASCII letter, 6 to 12 for another one",
            operator=operator,
            uid=uid,
            size_bytes=size_bytes,
            limit_bytes=UID_BYTES_MAX,
        )
