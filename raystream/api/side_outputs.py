"""What an operator emits beside its main output: side outputs by tag, and dead letters."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from raystream.errors import GraphError
from raystream.graph.logical import LogicalGraph, LogicalNode, Upstream
from raystream.operators.dead_letters import DEAD_LETTERS, DeadLetter

if TYPE_CHECKING:
    from raystream.api.stream import DataStream

S = TypeVar("S")


class OutputTag(str, Generic[S]):
    """The name of a side output; a plain `str` does as well.

    Example:
        >>> late = OutputTag("late")
        >>> late == "late"
        True
    """

    __slots__ = ()

    @property
    def name(self) -> str:
        """The name as a plain text."""
        return str(self)

    def __repr__(self) -> str:
        return f"OutputTag({str(self)!r})"


class SideOutputs(ABC):
    """The part of a stream that leads to the other outputs of the operator that made it."""

    _graph: LogicalGraph
    _upstreams: tuple[Upstream, ...]

    @abstractmethod
    def _stream(self, upstreams: tuple[Upstream, ...]) -> "DataStream[Any]":
        """Return a stream of these outputs, which is not keyed."""

    @overload
    def get_side_output(self, tag: OutputTag[S]) -> "DataStream[S]": ...
    @overload
    def get_side_output(self, tag: str) -> "DataStream[Any]": ...
    def get_side_output(self, tag: str) -> "DataStream[Any]":
        """Return the records that the function of `process` gave to `ctx.output(tag, record)`.

        Raises:
            GraphError: the stream is not the direct result of `process`.
        """
        if not isinstance(tag, str) or not tag:
            raise GraphError("tag of a side output is not a text", hint='write OutputTag("late")', tag=tag)
        if tag == DEAD_LETTERS:
            raise GraphError("tag of a side output is reserved", hint="call dead_letters()", tag=str(tag))
        if not self._direct or not self._made_by.kind.has_side_outputs:
            raise GraphError(
                "side output of something else than process",
                hint="keep the stream that process(...) returned, and call get_side_output on it",
                operator=self._made_by.label,
                tag=str(tag),
            )
        return self._stream((Upstream(node=self._made_by.id, tag=str(tag)),))

    def dead_letters(self) -> "DataStream[DeadLetter]":
        """Return the records on which the function raised, where the operator has `on_error="dead-letter"`.

        Raises:
            GraphError: the stream is not the direct result of such an operation.
        """
        if not self._direct or not self._made_by.dead_letters:
            raise GraphError(
                "dead letters of an operator that makes none",
                hint='keep the stream that map(..., on_error="dead-letter") returned, and call it on that',
                operator=self._made_by.label,
            )
        return self._stream((Upstream(node=self._made_by.id, tag=DEAD_LETTERS),))

    @property
    def _made_by(self) -> LogicalNode:
        """The operator whose output this is, or the first one of several."""
        return self._graph[self._upstreams[0].node]

    @property
    def _direct(self) -> bool:
        """True for the main output of one operator, as it was returned."""
        return self._upstreams == (Upstream(node=self._made_by.id),)
