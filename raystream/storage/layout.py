"""Names of all files that a job keeps in durable storage; the only place that builds them.

Knows names, reads and writes nothing.

    <checkpoint dir>/<job id>/chk-<n>/_metadata     + files that only this checkpoint uses
    <checkpoint dir>/<job id>/shared/               files that several checkpoints use
    <checkpoint dir>/<job id>/taskowned/            files that the job master never deletes
    <checkpoint dir>/<job id>/log/<number>          the job log
    <checkpoint dir>/<job id>/graph                 the program, for the job master's own recovery
    <checkpoint dir>/<job id>/archive               how the job ended
    <savepoint dir>/savepoint-<first 6 of job id>-<12 hex>/_metadata + data
    <savepoint dir>/savepoint-.../<uid>/<state>/part-<subtask>.parquet
    <any snapshot>/_claim                           which job has taken it over, to delete it
"""

import re
from dataclasses import dataclass
from urllib.parse import quote

import xxhash

from raystream.errors import StateCorruptError
from raystream.ids import Attempt, CheckpointId, JobId, OperatorUid, VertexId
from raystream.storage.filesystem import join_url, split_url
from raystream.storage.stores import to_url

METADATA_NAME = "_metadata"
_CLAIM_NAME = "_claim"
_SHARED = "shared"
_PROBE = "probe-"

_CHECKPOINT = re.compile(r"chk-([1-9][0-9]*)")
_DATA_FILE = re.compile(r"c([1-9][0-9]*)-a[1-9][0-9]*-.+")
_LOG_ENTRY = re.compile(r"[0-9]{8,}")
_JOB_ID = re.compile(r"[0-9a-f]{32}")
_SAVEPOINT = re.compile(r"savepoint-[0-9a-f]{6}-[0-9a-f]{12}")
_UID_LENGTH_MAX = 64
_DIRECTORY_LENGTH_MAX = 150


@dataclass(frozen=True, slots=True)
class JobLayout:
    """Builds the URLs of one job.

    Attributes:
        base_dir: the checkpoint directory of the configuration, which many jobs share.
    """

    base_dir: str
    job_id: JobId

    def __post_init__(self) -> None:
        object.__setattr__(self, "base_dir", to_url(self.base_dir))

    @property
    def job_dir(self) -> str:
        """Directory of everything below that belongs to this job."""
        return join_url(self.base_dir, self.job_id)

    @property
    def log_dir(self) -> str:
        """Directory of the job log."""
        return join_url(self.job_dir, "log")

    @property
    def shared_dir(self) -> str:
        """Directory of files that several checkpoints use."""
        return join_url(self.job_dir, _SHARED)

    @property
    def taskowned_dir(self) -> str:
        """Directory of files that belong to subtasks; never deleted by the job master."""
        return join_url(self.job_dir, "taskowned")

    @property
    def graph_path(self) -> str:
        """File of the packed program."""
        return join_url(self.job_dir, "graph")

    @property
    def archive_path(self) -> str:
        """File that says how the job ended."""
        return join_url(self.job_dir, "archive")

    def checkpoint_dir(self, checkpoint_id: CheckpointId) -> str:
        """Directory of one checkpoint."""
        return join_url(self.job_dir, f"chk-{checkpoint_id}")

    def log_entry(self, number: int) -> str:
        """File of one entry of the job log; entries sort by name."""
        return join_url(self.log_dir, f"{number:08d}")

    def probe_path(self, token: str) -> str:
        """File that every slot must be able to read before an attempt starts."""
        return join_url(self.job_dir, f"{_PROBE}{token}")


def savepoint_dir(base: str, job_id: JobId, token: str) -> str:
    """Return the directory of a savepoint; `token` is 12 random hex digits."""
    return join_url(to_url(base), f"savepoint-{job_id[:6]}-{token}")


def metadata_path(directory: str) -> str:
    """Return the file that makes a directory a snapshot."""
    return join_url(directory, METADATA_NAME)


def claim_path(directory: str) -> str:
    """Return the file that says which job has claimed a snapshot."""
    return join_url(directory, _CLAIM_NAME)


def data_file(
    checkpoint_id: CheckpointId,
    attempt: Attempt,
    subtask: tuple[VertexId, int],
    uid: OperatorUid,
    *,
    kind: str,
    token: str,
) -> str:
    """Return the name of a data file inside its snapshot's directory; it is never given twice.

    Args:
        checkpoint_id: the snapshot that the file is written for.
        attempt: the attempt that writes it.
        subtask: vertex and 0-based index.
        uid: the operator whose state it is.
        kind: what the file holds, such as `keyed`; letters, digits and `-`.
        token: random hex digits, so that a late writer never meets a newer one.

    Example:
        >>> data_file(3, 1, (2, 0), "count hits", kind="keyed", token="5eed")
        'c3-a1-v2-s0-count%20hits-keyed-5eed'
    """
    vertex, index = subtask
    return f"c{checkpoint_id}-a{attempt}-v{vertex}-s{index}-{_short(uid)}-{kind}-{token}"


def part_file(uid: OperatorUid, state: str, subtask: int) -> str:
    """Return the path of the Parquet file of one state of one subtask, inside a savepoint's directory.

    Example:
        >>> part_file("count hits", "by day/hour", 3)
        'count%20hits/by%20day%2Fhour/part-3.parquet'
    """
    return f"{_directory_name(uid)}/{_directory_name(state)}/part-{subtask}.parquet"


def resolve(directory: str, path: str) -> str:
    """Return the URL of a file that a handle names relative to its snapshot's directory.

    Raises:
        StateCorruptError: the path leads out of the directory, so that nothing outside is ever
            read or deleted on behalf of a damaged snapshot.
    """
    if not directory:
        raise StateCorruptError("a snapshot in memory refers to a file", path=path)
    if path.startswith("/") or "://" in path or any(part in ("", ".", "..") for part in path.split("/")):
        raise StateCorruptError("a handle leads out of its snapshot", directory=directory, path=path)
    return join_url(directory, path)


def shared_file(directory: str, name: str) -> str:
    """Return the URL of a file that a checkpoint shares with others of its job.

    Args:
        directory: of the checkpoint; the shared directory is beside it, so that a job's directory can be
            moved as a whole.
        name: of the file.

    Raises:
        StateCorruptError: the name leads elsewhere.
    """
    if not directory or "/" in name or name in ("", ".", ".."):
        raise StateCorruptError("a handle leads out of its snapshot", directory=directory, path=name)
    return join_url(split_url(directory)[0], _SHARED, name)


def written_for(file_name: str) -> CheckpointId | None:
    """Return the checkpoint that a file of this name (see `data_file`) was written for, or None."""
    match = _DATA_FILE.fullmatch(file_name)
    return CheckpointId(int(match[1])) if match else None


def checkpoint_of(directory_name: str) -> CheckpointId | None:
    """Return the checkpoint that a directory of this name holds, or None."""
    match = _CHECKPOINT.fullmatch(directory_name)
    return CheckpointId(int(match[1])) if match else None


def log_number_of(file_name: str) -> int | None:
    """Return the number of the log entry in a file of this name, or None."""
    return int(file_name) if _LOG_ENTRY.fullmatch(file_name) else None


def job_of(directory_name: str) -> JobId | None:
    """Return the job whose files a directory of this name holds, or None."""
    return JobId(directory_name) if _JOB_ID.fullmatch(directory_name) else None


def is_probe(file_name: str) -> bool:
    """Return whether a file of this name in a job's directory is a probe."""
    return file_name.startswith(_PROBE)


def owned_by_snapshot(directory: str) -> bool:
    """Return whether we named this directory, so that everything in it belongs to one snapshot."""
    name = split_url(directory)[1]
    return checkpoint_of(name) is not None or _SAVEPOINT.fullmatch(name) is not None


def _directory_name(name: str) -> str:
    """Return a uid or the name of a state as a directory; "." in front would hide it, or lead elsewhere."""
    short = _short(name, _DIRECTORY_LENGTH_MAX)
    return f"%2E{short[1:]}" if short.startswith(".") else short


def _short(name: str, length_max: int = _UID_LENGTH_MAX) -> str:
    """Return a name as part of a path: percent-encoded, long ones cut and made distinct by a hash."""
    quoted = quote(name, safe="")
    if len(quoted) <= length_max:
        return quoted
    return f"{quoted[: length_max - 17]}-{xxhash.xxh3_64_hexdigest(name.encode())}"
