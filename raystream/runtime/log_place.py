"""Which job, operator, subtask and attempt a log record belongs to.

A process tells once what it runs, the loop of a slot with each turn of a subtask whose turn it is; nothing is
said per record.  Threads of their own, such as those that commit, know job and attempt alone.  What records
are made of it is the business of whoever formats them.
"""

import threading
from typing import NamedTuple

NOWHERE = ("-", "-")
"""No operator, and no subtask."""


class LogPlace(NamedTuple):
    """What a log record is about, as text; `-` where that is not known."""

    job: str
    operator: str
    subtask: str
    attempt: str


class _Thread(threading.local):
    at = NOWHERE
    """Operator and subtask, by the name of the chain while that runs."""


class _Process:
    job = "-"
    attempt = "-"


here = _Thread()
process = _Process()


def current() -> LogPlace:
    """Return what the calling thread works for."""
    operator, subtask = here.at
    return LogPlace(process.job, operator, subtask, process.attempt)
