"""What the processes that raystream starts on a cluster have in common: options, and the form of their logs.

    2026-03-01 12:00:00,123 INFO job=5eed... operator="count hits" subtask=1 attempt=2 jobs.hits: slow key='x'

A line has time and level, then what it is about (`-` where that is not known), then the logger's name, the
message and the record's own fields.  With `RAYSTREAM_LOG_FORMAT=json` in the environment of the nodes every
record is one JSON object on one line instead, for collectors.
"""

import json
import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from raystream.runtime import log_place

UNRECORDED: dict[str, Any] = {"enable_task_events": False}
"""Options of every actor: Ray's head would else keep a record of each call, of which there is no end."""

LOG_FORMAT = "RAYSTREAM_LOG_FORMAT"
"""Environment variable: `text`, which is the default, or `json`."""

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class TextFormatter(logging.Formatter):
    """One line, and a traceback below it."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(message)s")  # `formatMessage` knows the rest.

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        """Return the line."""
        place = log_place.current()._asdict()
        named = " ".join(f"{name}={quoted(value)}" for name, value in place.items())
        fields = "".join(f" {name}={value!r}" for name, value in fields_of(record).items())
        head = f"{record.asctime} {record.levelname} {named} {record.name}"
        return f"{head}: {record.message}{fields}"


class JsonFormatter(logging.Formatter):
    """One JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        shown: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            **{name: value for name, value in log_place.current()._asdict().items() if value != "-"},
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            shown["traceback"] = self.formatException(record.exc_info)
        # A field that has the name of one of these is about something else, and is not lost either.
        fields = {f"extra_{name}" if name in shown else name: one for name, one in fields_of(record).items()}
        return json.dumps(shown | fields, default=repr)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return the `extra` values of a record; Ray adds private ones to every record."""
    found = record.__dict__.items()
    return {name: value for name, value in found if name not in _STANDARD and not name.startswith("_")}


def quoted(text: str) -> str:
    """Return a value as it stands in a line: in quotes where it does not end with its first space.

    Example:
        >>> quoted("count-hits"), quoted("count hits")
        ('count-hits', '"count hits"')
    """
    plain = text.isprintable() and not any(one in text for one in ' "=')
    return text if plain and text else json.dumps(text)


_FORMATS: dict[str, Callable[[], logging.Formatter]] = {"text": TextFormatter, "json": JsonFormatter}


def configure_logging(job_id: str) -> None:
    """Write what raystream and user code log, from INFO on, to the process's log file.

    Ray sends standard error of its workers to a file; the loggers of user code that has
    installed handlers of its own are left alone.

    Args:
        job_id: the job that the process works for.
    """
    log_place.process.job = job_id
    handler = logging.StreamHandler()
    handler.setFormatter(_FORMATS.get(os.environ.get(LOG_FORMAT, ""), TextFormatter)())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
