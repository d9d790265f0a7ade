"""The clusters that processes of this user have started for themselves, so that others find their jobs.

    <runtime directory>/raystream/clusters/<pid>.json     mode 0600 in a directory of mode 0700

A process holds a lock on its file for as long as it lives.  A file that can be locked is left over
from a process that died, and is removed by whoever finds it; a process id would not tell, since
they are used again.  Knows no Ray.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

_TEMPORARY_PREFIX = "."


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredCluster:
    """How to reach a cluster."""

    address: str
    auth_token: str = ""
    """The cluster's own token; empty when the user's token counts, or none."""
    pid: int = 0
    """The process with which the cluster ends."""


class Registration:
    """The entry of one cluster, until `close` or the end of this process."""

    def __init__(self, cluster: RegisteredCluster, directory: Path | None = None) -> None:
        directory = directory or registration_directory()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = directory / f"{cluster.pid}.json"
        unfinished = directory / f"{_TEMPORARY_PREFIX}{cluster.pid}"
        with suppress(FileNotFoundError):
            unfinished.unlink()
        self._descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        # Locked before it gets its name, so that nobody ever finds it unlocked.
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        os.write(self._descriptor, json.dumps(asdict(cluster)).encode())
        unfinished.rename(self._path)

    def close(self) -> None:
        """Remove the entry."""
        with suppress(FileNotFoundError):
            self._path.unlink()
        os.close(self._descriptor)


def registered_clusters(directory: Path | None = None) -> list[RegisteredCluster]:
    """Return the clusters whose processes live, newest first; entries of dead ones are removed."""
    directory = directory or registration_directory()
    with suppress(FileNotFoundError, PermissionError):
        paths = [path for path in directory.iterdir() if not path.name.startswith(_TEMPORARY_PREFIX)]
        found = [(stamp, cluster) for path in paths for stamp, cluster in _read(path)]
        return [cluster for _, cluster in sorted(found, key=lambda entry: -entry[0])]
    return []


def registration_directory() -> Path:
    """Return the directory of the entries of this user."""
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(runtime) / "raystream" / "clusters"
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "raystream" / "clusters"


def _read(path: Path) -> Iterator[tuple[int, RegisteredCluster]]:
    """Yield time and content of a file if its process lives, else remove it."""
    with suppress(OSError), path.open("rb") as file:
        status = os.fstat(file.fileno())
        if status.st_uid != os.getuid():
            return
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            with suppress(ValueError, TypeError):
                yield status.st_mtime_ns, RegisteredCluster(**json.loads(file.read()))
        else:
            path.unlink()
