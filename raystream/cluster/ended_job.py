"""A job that had ended when its job master began: all that is left is how, for clients to ask.

Knows the archive and the job log; knows no Ray.
"""

from collections.abc import Sequence
from dataclasses import replace

from raystream.api.runner import CancelRequest, ClientRequest
from raystream.cluster.publication import Publication
from raystream.cluster.worker import WorkerInfo
from raystream.errors import CheckpointError, RaystreamError
from raystream.ids import SlotId
from raystream.protocol.client_requests import ClientRequests, RequestOutcome
from raystream.protocol.job_end import refusal
from raystream.runtime.coordinator_storage import Directory
from raystream.runtime.coordinator_view import JobView, view_of
from raystream.runtime.messages import Report
from raystream.storage.archive import read_archive
from raystream.storage.job_log import DurableJobLog
from raystream.storage.log_entries import SavepointCompleted


class EndedJob:
    """Answers clients of a job that has ended.

    Args:
        view: how it ended.
        outcomes: of requests that were answered before, or should have been.
    """

    workers: tuple[WorkerInfo, ...] = ()

    def __init__(self, view: JobView, outcomes: Sequence[RequestOutcome]) -> None:
        self._requests = ClientRequests()
        self._requests.recovered(outcomes)
        self.publication = Publication(replace(view, outcomes=self._requests.outcomes))

    def requested(self, request: ClientRequest) -> None:
        """Answer a client's request; the answer is in the view."""
        if not self._requests.request_received(request.request_id):
            return
        view = self.publication.view
        error: RaystreamError | None
        match request:
            case CancelRequest():
                error = refusal(view.status)
            case _:
                error = CheckpointError(f"job is {view.status.value}; the savepoint was not taken")
        self._requests.request_resolved(RequestOutcome(request_id=request.request_id, error=error))
        self.publication.publish(replace(view, outcomes=self._requests.outcomes), news=True)

    def reported(self, slot: SlotId, incarnation: int, batch: int, reports: Sequence[Report]) -> None:
        """Drop reports: nothing counts any more."""


def find_ended(directory: Directory) -> EndedJob | None:
    """Return the job of a directory if it has ended, and everything of its end is done; blocks.

    Raises:
        StateError: its archive or log is damaged, or of a format that is not read.
        StorageError: the store did not answer.
    """
    archive = read_archive(directory.fs, directory.layout)
    if archive is None:
        return None
    entries = DurableJobLog(directory.fs, directory.layout).read()
    outcomes = [
        RequestOutcome(request_id=request_id, checkpoint_id=entry.checkpoint_id, path=entry.directory)
        for entry in entries
        if isinstance(entry, SavepointCompleted)
        for request_id in entry.request_ids
    ]
    return EndedJob(view_of(archive), outcomes)
