"""How an error ends a command: what is printed of it, and the exit code.

An error of ours is printed as

    [the traceback of the user's code, if it was user code that failed]
    error: <cause, one line>
    [a table that belongs to the cause]
    hint: <advice, one line>
"""

import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from raystream.errors import (
    CheckpointError,
    ClusterNotFoundError,
    ConfigError,
    GraphError,
    JobFailedError,
    JobNotFoundError,
    KeyTypeError,
    ProtocolError,
    RaystreamError,
    SlotLostError,
    StateCorruptError,
    StateError,
    StateRestoreError,
    StorageError,
    UserCodeError,
)

DONE = 0
JOB_FAILED = 1
WRONG_USAGE = 2
NOT_FOUND = 3
SIGNALLED = 128
"""Plus the number of the signal."""

_CODES: tuple[tuple[type[RaystreamError], int], ...] = (
    (ConfigError, WRONG_USAGE),
    (GraphError, WRONG_USAGE),
    (StateRestoreError, WRONG_USAGE),
    (StateCorruptError, WRONG_USAGE),
    (JobNotFoundError, NOT_FOUND),
    (ClusterNotFoundError, NOT_FOUND),
)

_ADVICE: tuple[tuple[type[RaystreamError], str], ...] = (
    (ConfigError, "`raystream config` lists every key with its meaning"),
    (GraphError, "correct the program; `raystream info JOB.py` shows its plan without running it"),
    (KeyTypeError, "let key_by return text, bytes, numbers, dates, UUIDs or tuples of these"),
    (UserCodeError, "the traceback above is of the job's own code: correct it, or handle the record there"),
    (StateRestoreError, "give -s the directory of a checkpoint or savepoint of this job"),
    (StateCorruptError, "start from another snapshot: `raystream run -s PATH ...`"),
    (StateError, "the traceback, if there is one, shows the call in the job's own code"),
    (StorageError, "check that the path exists and that the job may read and write there"),
    (CheckpointError, "`raystream checkpoints JOB` shows what became of the latest ones"),
    (SlotLostError, "see the logs of Ray for why the process ended; a restart strategy survives this"),
    (JobNotFoundError, "`raystream list -a` shows all jobs"),
    (ClusterNotFoundError, "start one with `ray start --head`, or give --address"),
    (ProtocolError, "this is a bug in raystream; please report it with the logs of the job"),
)
"""Advice for errors that bring none, more special types first."""


def exit_code(error: RaystreamError) -> int:
    """Return the exit code for an error that ends a command."""
    cause = error.__cause__
    if isinstance(error, JobFailedError):
        # Found out where the job runs, but for the user to correct all the same.
        refused = isinstance(cause, ConfigError | StateRestoreError | StateCorruptError)
        return WRONG_USAGE if refused else JOB_FAILED
    return next((code for kind, code in _CODES if isinstance(error, kind)), JOB_FAILED)


def error_lines(error: RaystreamError) -> Iterator[str]:
    """Yield the lines to print for an error of ours; the last two are the cause and the advice."""
    if user_traceback := error.context.get("traceback"):
        yield from str(user_traceback).rstrip().splitlines()
    first, *rest = error.message.strip().splitlines() or [type(error).__name__]
    fields = " ".join(f"{name}={value!r}" for name, value in error.context.items() if name != "traceback")
    cause = _one_line(first).removesuffix(":")
    yield f"error: {cause} ({_one_line(fields)})" if fields else f"error: {cause}"
    yield from rest
    yield f"hint: {_one_line(error.hint or _advice(error))}"


def script_error_lines(error: BaseException, script: Path) -> Iterator[str]:
    """Yield the lines to print for an exception that the user's script raised in this process."""
    shown = traceback.TracebackException(type(error), error, _from_script(error.__traceback__, script))
    yield from "".join(shown.format()).rstrip().splitlines()
    # Of a syntax error Python shows the source too, which belongs above.
    source_apart = isinstance(error, SyntaxError)
    said = f"{type(error).__name__}: {error}" if source_apart else "".join(shown.format_exception_only())
    yield f"error: {script.name} raised {_one_line(said)}"
    yield "hint: the traceback above is of the script; it ran in this process and no job failed"


def usage_lines(message: str, hint: str) -> Iterator[str]:
    """Yield the lines to print for a command that was typed wrongly."""
    message = _one_line(message).rstrip(".")
    yield f"error: {message[:1].lower()}{message[1:]}"
    yield f"hint: {hint}"


def print_lines(lines: Iterator[str]) -> None:
    """Print the lines of an error on standard error."""
    print("\n".join(lines), file=sys.stderr, flush=True)


def _advice(error: RaystreamError) -> str:
    kinds = [error, error.__cause__] if isinstance(error, JobFailedError) else [error]
    fitting = (advice for one in reversed(kinds) for kind, advice in _ADVICE if isinstance(one, kind))
    return next(fitting, "the log above says more")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _from_script(frames: TracebackType | None, script: Path) -> TracebackType | None:
    """Return the traceback from the first frame of the script on, or nothing for a syntax error."""
    while frames is not None and frames.tb_frame.f_code.co_filename != str(script):
        frames = frames.tb_next
    return frames
