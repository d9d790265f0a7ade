"""Who is told what came of a savepoint.

A savepoint belongs to the client that asked for it.  A stop belongs to all who want the job to stop:
the first one decides where its savepoint goes, whoever asks for the same gets the same, also when it is
complete already, and whoever wants it elsewhere, in another format, or drained when it is not, is told so.
When a stop fails the job runs on, and the next one is a first one again.
"""

from raystream.errors import CheckpointError, RaystreamError
from raystream.ids import CheckpointId
from raystream.protocol.checkpoint_commands import Command, ResolveSavepoint
from raystream.protocol.checkpoint_requests import SAVEPOINTS_WAITING_MAX, Purpose, Request, too_many_wait


class SavepointAnswers:
    """Decides who is answered when."""

    def __init__(self) -> None:
        self._stop: Request | None = None  # The one that decides.
        self._waiting: list[str] = []  # Requests that want the same.
        self._stopped_at: CheckpointId | None = None

    def joined(self, request: Request) -> list[Command] | None:
        """Handle a request; None when it asks for a savepoint of its own, to be answered by `resolved`."""
        if request.purpose is not Purpose.STOP:
            return None
        stop = self._stop
        if stop is None:
            self._stop = request
            return None
        if request.base not in ("", stop.base):
            error = CheckpointError(
                "job is being stopped with a savepoint in another directory",
                hint="ask for the stop without a directory to get that savepoint",
                directory=stop.base or "the configured one",
            )
            return [ResolveSavepoint(request.request_id, None, error)]
        if request.format is not stop.format:
            error = CheckpointError(
                "job is being stopped with a savepoint of another format",
                hint="ask for the stop with that format to get that savepoint",
                format=stop.format.value,
            )
            return [ResolveSavepoint(request.request_id, None, error)]
        if request.drain is not stop.drain:
            error = CheckpointError(
                "job is being stopped without a drain" if request.drain else "job is being drained",
                hint=f"ask for the stop {'with' if stop.drain else 'without'} --drain to get that savepoint",
            )
            return [ResolveSavepoint(request.request_id, None, error)]
        if self._stopped_at is not None:
            return [ResolveSavepoint(request.request_id, self._stopped_at, None)]
        if len(self._waiting) >= SAVEPOINTS_WAITING_MAX:
            return [ResolveSavepoint(request.request_id, None, too_many_wait(Purpose.STOP))]
        self._waiting.append(request.request_id)
        return []

    def of(self, request: Request) -> tuple[str, ...]:
        """Return the clients' requests that wait for a savepoint; none if no client wants it."""
        own = [request.request_id] if request.request_id else []
        return tuple(own + self._waiting if request.purpose is Purpose.STOP else own)

    def resolved(
        self, request: Request, checkpoint_id: CheckpointId | None, error: RaystreamError | None
    ) -> list[Command]:
        """Return the answers when a checkpoint is complete or never will be; none if no client wants it."""
        waiting = self.of(request)
        if request.purpose is Purpose.STOP:
            self._waiting = []
            self._stopped_at = checkpoint_id
            if checkpoint_id is None:
                self._stop = None
        return [ResolveSavepoint(request_id, checkpoint_id, error) for request_id in waiting]

    def validate(self) -> None:
        """Assert every invariant."""
        assert self._stop is not None or (not self._waiting and self._stopped_at is None)
        assert self._stopped_at is None or not self._waiting
