"""What clients asked of a job and what came of it: each request is taken once and answered once.

A client that repeats a request, because an answer was lost, finds the first one's outcome.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from raystream.errors import ProtocolError, RaystreamError
from raystream.ids import CheckpointId

OUTCOMES_REMEMBERED_MAX = 256
"""Answered requests whose outcome can still be asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOutcome:
    """The answer to a client's request."""

    request_id: str
    checkpoint_id: CheckpointId | None = None
    path: str = ""
    """Directory of the savepoint, if the request was for one."""
    downtime_ms: int | None = None
    """Time in which the job processed nothing, if the request was for another parallelism."""
    error: RaystreamError | None = None
    """None when what was asked for has happened."""

    @property
    def answer(self) -> str:
        """What the client is told of a success, as text."""
        return self.path if self.downtime_ms is None else str(self.downtime_ms)


class ClientRequests:
    """The requests of one job, by id."""

    def __init__(self) -> None:
        self._open: set[str] = set()
        self._outcomes: dict[str, RequestOutcome] = {}  # Oldest first.

    @property
    def outcomes(self) -> tuple[RequestOutcome, ...]:
        """Answers, oldest first."""
        return tuple(self._outcomes.values())

    def request_received(self, request_id: str) -> bool:
        """Return whether this is a new request, to be acted on, and not a repetition."""
        if request_id in self._open or request_id in self._outcomes:
            return False
        self._open.add(request_id)
        return True

    def recovered(self, outcomes: Iterable[RequestOutcome]) -> None:
        """Know answers that an earlier job master may have given; its other requests are made again."""
        self._outcomes = {outcome.request_id: outcome for outcome in outcomes}
        for request_id in [*self._outcomes][:-OUTCOMES_REMEMBERED_MAX]:
            del self._outcomes[request_id]

    def request_resolved(self, outcome: RequestOutcome) -> None:
        """Keep the answer.

        Raises:
            ProtocolError: the request was never received, or is answered already.
        """
        if outcome.request_id not in self._open:
            raise ProtocolError("answer to a request that is not open", request_id=outcome.request_id)
        self._open.remove(outcome.request_id)
        self._outcomes[outcome.request_id] = outcome
        if len(self._outcomes) > OUTCOMES_REMEMBERED_MAX:
            del self._outcomes[next(iter(self._outcomes))]

    def validate(self) -> None:
        """Assert every invariant."""
        assert not (self._open & self._outcomes.keys()), "a request is open and answered"
        assert len(self._outcomes) <= OUTCOMES_REMEMBERED_MAX
