"""What a client asks for, as the machines know it."""

from typing import assert_never

from raystream.api.runner import CheckpointRequest, SavepointRequest, StopRequest
from raystream.config.options import CheckpointConfig
from raystream.protocol.checkpoint_requests import Purpose, Request

SnapshotRequest = SavepointRequest | CheckpointRequest | StopRequest
"""Requests that a checkpoint or savepoint answers."""


def as_wanted(request: SnapshotRequest, options: CheckpointConfig) -> Request:
    """Return a request for a snapshot as the checkpoint machine takes it."""
    match request:
        case SavepointRequest(request_id, directory, wanted_format):
            return Request(Purpose.SAVEPOINT, request_id, _base(directory, options), wanted_format)
        case CheckpointRequest(request_id, full):
            return Request(Purpose.MANUAL, request_id, full=full)
        case StopRequest(request_id, directory, wanted_format, drain):
            return Request(Purpose.STOP, request_id, _base(directory, options), wanted_format, drain=drain)
        case _:
            assert_never(request)


def _base(directory: str | None, options: CheckpointConfig) -> str:
    """Return where a client wants a savepoint; empty for the configured directory, also by its name."""
    return "" if directory is None or directory == options.savepoint_directory else directory
