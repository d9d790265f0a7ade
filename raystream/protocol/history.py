"""The last steps of a state machine, for the error of the one that must not happen."""

from collections import deque
from typing import Any, Generic, TypeVar

from raystream.errors import ProtocolError

HISTORY_LENGTH_MAX = 64

CommandT = TypeVar("CommandT")


class History(Generic[CommandT]):
    """A bounded record of events and the commands that they led to."""

    def __init__(self) -> None:
        self._steps: deque[tuple[str, Any, tuple[CommandT, ...]]] = deque(maxlen=HISTORY_LENGTH_MAX)

    def done(self, event: str, argument: Any, commands: list[CommandT]) -> list[CommandT]:
        """Record a step and return its commands."""
        self._steps.append((event, argument, tuple(commands)))
        return commands

    def broken(self, message: str, **context: Any) -> ProtocolError:
        """Return the error of an event that is not possible here, with the steps that led to it."""
        return ProtocolError(message, **context, history=[repr(step) for step in self._steps])
