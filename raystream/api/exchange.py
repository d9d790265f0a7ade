"""How the records of a stream find the subtasks of the next operator, and which streams enter it together.

These operations make no operator; what they say stands in the `Upstream`s of the next one.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from raystream.api.connected import BroadcastConnectedStream, BroadcastStream, ConnectedStreams
from raystream.api.operator_options import FunctionUse
from raystream.errors import GraphError
from raystream.graph.logical import LogicalGraph, Upstream
from raystream.graph.physical import Partitioner, Partitioning
from raystream.state.descriptor import MapStateDescriptor

if TYPE_CHECKING:
    from raystream.api.stream import DataStream

T = TypeVar("T")
U = TypeVar("U")
K = TypeVar("K")


class Exchanges(ABC, Generic[T]):
    """The part of a stream that says where its records go."""

    _keyed = False
    _graph: LogicalGraph
    _upstreams: tuple[Upstream, ...]

    @abstractmethod
    def _stream(self, upstreams: tuple[Upstream, ...]) -> "DataStream[Any]":
        """Return a stream of these outputs, which is not keyed."""

    def rebalance(self) -> "DataStream[T]":
        """Return the stream with its records dealt out evenly to all subtasks of the next operator."""
        return self._partitioned(Partitioning.REBALANCE)

    def rescale(self) -> "DataStream[T]":
        """Return the stream with the records of each subtask dealt out evenly to some of the next operator's.

        Where the one has twice the parallelism of the other, each subtask is connected with two, or two
        with one; there are fewer connections than with `rebalance`.
        """
        return self._partitioned(Partitioning.RESCALE)

    def shuffle(self) -> "DataStream[T]":
        """Return the stream with each record in a subtask of the next operator chosen at random."""
        return self._partitioned(Partitioning.SHUFFLE)

    def global_(self) -> "DataStream[T]":
        """Return the stream with all records in the first subtask of the next operator."""
        return self._partitioned(Partitioning.GLOBAL)

    def partition_custom(
        self, partitioner: Callable[[K, int], int], key_selector: Callable[[T], K]
    ) -> "DataStream[T]":
        """Return the stream with each record in the subtask of the next operator that a function says.

        Args:
            partitioner: returns the 0-based subtask, given the key and the number of subtasks.
            key_selector: returns what the partitioner gets of a record.
        """
        _PARTITION_CUSTOM.check(partitioner)
        _PARTITION_CUSTOM.check(key_selector)
        return self._partitioned(Partitioning.CUSTOM, _KeyPartitioner(partitioner, key_selector))

    @overload
    def broadcast(self) -> "DataStream[T]": ...
    @overload
    def broadcast(
        self, descriptor: MapStateDescriptor[Any, Any], /, *descriptors: MapStateDescriptor[Any, Any]
    ) -> BroadcastStream[T]: ...
    def broadcast(self, *descriptors: MapStateDescriptor[Any, Any]) -> "DataStream[T] | BroadcastStream[T]":
        """Return the stream with every record in every subtask of the next operator.

        Args:
            descriptors: of the states that the records are to write, beside the stream that is connected
                with the result; without any, the result is an ordinary stream.

        Raises:
            GraphError: an argument is not a `MapStateDescriptor`.
        """
        for descriptor in descriptors:
            if not isinstance(descriptor, MapStateDescriptor):
                raise GraphError(
                    "broadcast state is not declared as a map",
                    hint='write MapStateDescriptor("rules", str, Rule)',
                    argument=repr(descriptor)[:80],
                )
        stream: DataStream[T] = self._partitioned(Partitioning.BROADCAST)
        return BroadcastStream(stream, descriptors) if descriptors else stream

    def union(self, *others: "DataStream[T]") -> "DataStream[T]":
        """Return one stream of the records of all; the result is not keyed, whatever the parts are.

        Raises:
            GraphError: something else than streams, or streams of different environments.
        """
        for other in others:
            self._check_joinable("union", other)
        upstreams = tuple(upstream for stream in (self, *others) for upstream in stream._upstreams)
        return self._stream(upstreams)

    @overload
    def connect(self, other: "DataStream[U]") -> ConnectedStreams[T, U]: ...
    @overload
    def connect(self, other: BroadcastStream[U]) -> BroadcastConnectedStream[T, U]: ...
    def connect(
        self, other: "DataStream[U] | BroadcastStream[U]"
    ) -> ConnectedStreams[T, U] | BroadcastConnectedStream[T, U]:
        """Return this stream and another one, to be handled by one operator with a function for each.

        Args:
            other: a stream of any type; the two share keyed state when both are keyed, by keys of one
                type.  Or a broadcast stream, the result of `broadcast(descriptor)`.

        Raises:
            GraphError: something else than a stream, or one of another environment.
        """
        this: Any = self
        if isinstance(other, BroadcastStream):
            self._check_joinable("connect", other.stream)
            return BroadcastConnectedStream(this, other, keyed=self._keyed)
        self._check_joinable("connect", other)
        return ConnectedStreams(this, other, keyed=self._keyed and other._keyed)

    def _check_joinable(self, operation: str, other: object) -> None:
        if not isinstance(other, Exchanges):
            raise GraphError(f"{operation} of something that is not a stream", argument=repr(other)[:80])
        if other._graph is not self._graph:
            raise GraphError(
                f"{operation} of streams of different jobs",
                hint="make both from one environment, between two calls of execute()",
            )

    def _partitioned(
        self, partitioning: Partitioning, partitioner: Partitioner | None = None
    ) -> "DataStream[Any]":
        return self._stream(
            tuple(
                replace(upstream, partitioning=partitioning, key_selector=None, partitioner=partitioner)
                for upstream in self._upstreams
            )
        )


@dataclass(frozen=True, slots=True)
class _KeyPartitioner:
    """Partitions records by what a selector takes out of them."""

    partitioner: Callable[[Any, int], int]
    key_selector: Callable[[Any], Any]

    def __call__(self, value: Any, subtasks: int) -> int:
        return self.partitioner(self.key_selector(value), subtasks)


_PARTITION_CUSTOM = FunctionUse("partition_custom", (), returns_record=True)
