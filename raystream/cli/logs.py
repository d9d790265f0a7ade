"""Where log records go when raystream is run from the command line; the library configures nothing."""

import copy
import logging
import os
import sys
from typing import TextIO

from raystream.errors import RaystreamError

LEVEL_VARIABLE = "RAYSTREAM_LOG_LEVEL"
"""Environment variable that says what is shown: `debug`, `info`, `warning` (default) or `error`."""

_EVERY_RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def configure_logging() -> None:
    """Send log records to standard error, one line each."""
    handler = _StandardError()
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    level = logging.getLevelNamesMapping().get(os.environ.get(LEVEL_VARIABLE, "").upper(), logging.WARNING)
    logging.getLogger("raystream").setLevel(level)


class LineFormatter(logging.Formatter):
    """One line: time, level, message, and the record's `extra` as `name=value`.

    Of an error of ours the line has the message; where in raystream it was raised is shown with
    `debug` only.  Other exceptions have their traceback below the line.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and the traceback below it if there is one to show."""
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, RaystreamError) or logging.getLogger("raystream").level <= logging.DEBUG:
            return super().format(record)
        brief = copy.copy(record)
        brief.exc_info = brief.exc_text = None
        return f"{super().format(brief)}: {str(error).strip().partition(chr(10))[0].removesuffix(':')}"

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        """Return the line without a traceback."""
        fields = {name: value for name, value in vars(record).items() if name not in _EVERY_RECORD}
        # Ray adds private fields to every record of a process in which it runs.
        extra = [f"{name}={value!r}" for name, value in fields.items() if not name.startswith("_")]
        return " ".join([super().formatMessage(record), *extra])


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to what is standard error at the time, which changes while a status line is shown."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr
