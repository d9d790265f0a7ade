"""All exceptions raised by raystream.

RaystreamError
├── ConfigError              the job cannot start as configured; the user can fix it
├── GraphError               the program itself is wrong (two operators with one uid, ...)
├── KeyTypeError             a key of a type that has no stable encoding
├── StateError               keyed or operator state was used in a way its contract forbids
│   ├── StateRestoreError    a snapshot does not fit the program
│   └── StateCorruptError    a checksum does not match; never retried
├── StorageError             a durable store did not do what was asked
│   ├── FencedError          a newer attempt owns the job log; this process must exit
│   └── OutputLostError      records that a checkpoint counts as written are gone; never retried
├── CheckpointError          a requested checkpoint or savepoint was aborted; carries the reason
├── UserCodeError            a user function raised; carries operator, subtask and record
├── SlotLostError            the process of a slot is gone
├── ConnectionLostError      a data connection broke
├── ProtocolError            a peer broke the protocol; a bug, fails the attempt
├── JobFailedError           the job ended as FAILED; what `execute` raises
├── JobNotFoundError         no such job
└── ClusterNotFoundError     no Ray cluster answers
"""

from typing import Any


class RaystreamError(Exception):
    """Base of every error raised by raystream.

    The message is a lower-case fragment without a full stop that says what was
    attempted; values go into `context`, advice into `hint`; a `traceback` in the context is
    shown last, as it is.  Errors cross Ray actors, so an instance survives pickling unchanged.
    """

    def __init__(self, message: str, *, hint: str = "", **context: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.context = context

    def __str__(self) -> str:
        shown = {name: value for name, value in self.context.items() if name != "traceback"}
        fields = " ".join(f"{name}={value!r}" for name, value in shown.items())
        lines = [f"{self.message} ({fields})" if fields else self.message]
        if self.hint:
            lines.append(f"hint: {self.hint}")
        if traceback := self.context.get("traceback"):
            lines.append(str(traceback).rstrip())
        return "\n".join(lines)

    @property
    def brief(self) -> str:
        """The message and what the operating system or a store said to it; for one line of several."""
        cause = self.context.get("cause")
        return f"{self.message}: {cause}" if cause else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.hint, self.context)


def _rebuild(cls: type[RaystreamError], message: str, hint: str, context: dict[str, Any]) -> RaystreamError:
    return cls(message, hint=hint, **context)


class ConfigError(RaystreamError):
    """The job cannot start as configured; the user can fix it."""


class GraphError(RaystreamError):
    """The program does not describe a job that can run; the user can fix it."""


class KeyTypeError(RaystreamError):
    """A key has a type without a stable encoding."""


class StateError(RaystreamError):
    """State was used in a way that its contract forbids."""


class StateRestoreError(StateError):
    """A snapshot does not fit the program, or cannot be read; nothing was processed."""


class StateCorruptError(StateError):
    """Stored bytes do not match their checksum or format; never retried."""


class StorageError(RaystreamError):
    """A durable store did not do what was asked of it."""


class FencedError(StorageError):
    """A newer attempt owns the job log; whoever sees this must stop at once."""


class OutputLostError(StorageError):
    """Records that a checkpoint counts as written are gone; a restart would go on without them."""


class CheckpointError(RaystreamError):
    """A requested checkpoint or savepoint was aborted; the message carries the reason."""


class UserCodeError(RaystreamError):
    """A user function raised; names the operator, the subtask and the record.

    The traceback of the user's exception is in `context["traceback"]`, so that it
    crosses process boundaries even when the exception itself does not pickle.
    """


class SlotLostError(RaystreamError):
    """The process of a slot is gone, or was given up because it no longer answers."""


class ConnectionLostError(RaystreamError):
    """A data connection between two slots broke; usually because its peer died."""


class ProtocolError(RaystreamError):
    """A peer broke the protocol; this is a bug and fails the attempt."""


class JobFailedError(RaystreamError):
    """The job ended as FAILED; the message is its primary cause."""


class JobNotFoundError(RaystreamError):
    """No job has this id, prefix or name."""


class ClusterNotFoundError(RaystreamError):
    """No Ray cluster answers at the address."""
