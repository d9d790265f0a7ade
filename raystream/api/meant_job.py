"""Which job is meant by an id, a prefix of one or a name: one rule for every command and client."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from raystream.errors import JobNotFoundError
from raystream.ids import JobId

MATCHES_SHOWN_MAX = 5


class Candidate(NamedTuple):
    """A job that may be meant."""

    job_id: JobId
    name: str
    ended: bool
    """It will not run again."""


def meant_job(wanted: str, candidates: Sequence[Candidate]) -> JobId | None:
    """Return the one job that is meant; None when there is none.

    A job that runs is meant rather than one that has ended.

    Raises:
        JobNotFoundError: more than one is meant.

    Example:
        >>> jobs = [Candidate("5f1d", "hits", True), Candidate("a0c3", "hits", False)]
        >>> meant_job("5f", jobs), meant_job("hits", jobs), meant_job("visits", jobs)
        ('5f1d', 'a0c3', None)
    """
    readings: tuple[Callable[[Candidate], bool], ...] = (
        lambda one: one.job_id == wanted,
        lambda one: one.job_id.startswith(wanted) and not one.ended,
        lambda one: one.name == wanted and not one.ended,
        lambda one: one.job_id.startswith(wanted),
        lambda one: one.name == wanted,
    )
    for reading in readings:
        # An empty text, such as a variable of a shell that is not set, begins every id and means none.
        found = [one for one in candidates if wanted and reading(one)]
        if len(found) > 1:
            ids = ", ".join(one.job_id for one in found[:MATCHES_SHOWN_MAX])
            ended = all(one.ended for one in found)
            raise JobNotFoundError(
                "no job is meant that runs, and more than one that has ended"
                if ended
                else "more than one job is meant",
                hint=f"give more of the id: {ids}",
                job=wanted,
                jobs=len(found),
            )
        if found:
            return found[0].job_id
    return None
