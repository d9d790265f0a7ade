"""What the processes that raystream starts on a cluster have in common."""

import logging
from typing import Any

UNRECORDED: dict[str, Any] = {"enable_task_events": False}
"""Options of every actor: Ray's head would else keep a record of each call, of which there is no end."""

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class FieldsFormatter(logging.Formatter):
    """Writes the `extra` values of a record behind its message."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        line = super().format(record)
        fields = " ".join(f"{k}={v!r}" for k, v in record.__dict__.items() if k not in _STANDARD)
        head, newline, traceback = line.partition("\n")
        return f"{head} {fields}{newline}{traceback}" if fields else line


def configure_logging() -> None:
    """Write what raystream and user code log, from INFO on, to the process's log file.

    Ray sends standard error of its workers to a file; the loggers of user code that has
    installed handlers of its own are left alone.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(FieldsFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
