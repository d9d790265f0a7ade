"""What a file sink has pre-committed in an object store, as it stands in a snapshot."""

import msgspec

from raystream.connectors.part_names import UPLOAD_FORMAT_VERSION
from raystream.connectors.versioned import decode, encode


class UploadCommittable(msgspec.Struct, frozen=True, array_like=True):
    """An upload whose parts are all there, what it becomes, and who wrote it."""

    url: str
    upload_id: str
    part_count: int
    size_bytes: int
    marker: str
    """By which the object is known to be this one."""
    job_id: str
    attempt: int
    token: str
    """By which that job knows the prefix again."""
    begun_ms: int
    """When the upload was begun; wall time, ms since the epoch."""


def encode_upload(upload: UploadCommittable) -> bytes:
    """Return a committable as it is stored."""
    return encode(UPLOAD_FORMAT_VERSION, upload)


def decode_upload(raw: bytes) -> UploadCommittable:
    """Return a committable.

    Raises:
        StateRestoreError: it is of another version, or not what it should be.
    """
    return decode(raw, UPLOAD_FORMAT_VERSION, UploadCommittable, "output file")
