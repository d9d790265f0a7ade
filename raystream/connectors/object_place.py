"""The prefix of an object store that a file sink writes to, and the marker by which it is known again.

    <prefix>/.raystream-<job id>          a random token, left there when the job first comes
    <prefix>/.raystream-<job id>-taken    left there by a user: what is missing was read and removed

As on disks (`raystream.connectors.file_place`): an object that is neither there nor an upload has been
read and removed only where the token is the one that was stored with its name.  Elsewhere it is the
bucket that is another one, or gone, or an endpoint that answers for another store.
"""

import logging
import secrets

from raystream.connectors.file_place import marker_name
from raystream.errors import StorageError
from raystream.storage.filesystem import FileSystem, MissingFileError, join_url

logger = logging.getLogger(__name__)

_TOKEN_BYTES = 8


def taken_name(job_id: str) -> str:
    """Return the name of the object by which a user says that no output of a job was lost."""
    return f"{marker_name(job_id)}-taken"


def claim_prefix(fs: FileSystem, prefix: str, job_id: str, *, attempt: int) -> str:
    """Leave the job's marker unless it is there; return the token, one for all subtasks and attempts.

    Raises:
        StorageError: the marker cannot be read or written.
    """
    token = token_at(fs, prefix, job_id)
    if token is not None:
        return token
    if attempt > 1:
        logger.warning(
            "output prefix is one that no earlier attempt has written to",
            extra={"path": prefix, "attempt": attempt},
        )
    drawn = secrets.token_hex(_TOKEN_BYTES)
    if fs.create_exclusive(join_url(prefix, marker_name(job_id)), drawn.encode()):
        return drawn
    token = token_at(fs, prefix, job_id)  # Another subtask was faster.
    if token is None:
        raise StorageError("output prefix was cleaned while it was marked", path=prefix)
    return token


def token_at(fs: FileSystem, prefix: str, job_id: str) -> str | None:
    """Return the token of a job; None when the job was never there.

    Raises:
        StorageError: the store did not answer.
    """
    try:
        return fs.read(join_url(prefix, marker_name(job_id))).decode("ascii", "replace").strip()
    except MissingFileError:
        return None
