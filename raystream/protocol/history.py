"""The last steps of a state machine, for the error of the one that must not happen.

Steps are kept as short texts: what an event or a command carries may be large.
"""

from collections import deque
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, Generic, TypeVar

from raystream.errors import ProtocolError, RaystreamError

HISTORY_LENGTH_MAX = 64
_ITEMS_SHOWN_MAX = 4

CommandT = TypeVar("CommandT")


class History(Generic[CommandT]):
    """A bounded record of events and the commands that they led to."""

    def __init__(self) -> None:
        self._steps: deque[str] = deque(maxlen=HISTORY_LENGTH_MAX)

    def done(self, event: str, argument: Any, commands: list[CommandT]) -> list[CommandT]:
        """Record a step and return its commands."""
        self._steps.append(f"{event} {brief(argument)} -> {', '.join(map(brief, commands)) or 'nothing'}")
        return commands

    def broken(self, message: str, **context: Any) -> ProtocolError:
        """Return the error of an event that is not possible here, with the steps that led to it."""
        return ProtocolError(message, **context, history=list(self._steps))


def brief(value: Any) -> str:
    """Return a short text for an event's argument or a command; long and nested contents are left out.

    Example:
        >>> brief((3, "savepoint", (1, 2, 3, 4, 5, 6)))
        "(3, 'savepoint', (1, 2, 3, 4, ...))"
    """
    match value:
        case None | bool() | int() | float() | str():
            return repr(value)
        case Enum():
            return str(value.value)
        case RaystreamError():
            return f"{type(value).__name__}({value.message!r})"
        case tuple():
            items = [brief(item) for item in value[:_ITEMS_SHOWN_MAX]]
            return f"({', '.join([*items, '...'] if len(value) > _ITEMS_SHOWN_MAX else items)})"
        case _ if is_dataclass(value):
            values = (getattr(value, field.name) for field in fields(value))
            plain = [
                brief(v) for v in values if isinstance(v, bool | int | float | str | Enum | RaystreamError)
            ]
            return f"{type(value).__name__}({', '.join(plain)})"
        case _:
            return type(value).__name__
