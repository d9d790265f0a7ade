"""What the processes of a job have written, kept by each node and read from any client.

Ray sends the output of each process to two files of its node's log directory.  Which ones
are whose is said by links beside them, so that a process that was killed is found too:

    <Ray's logs>/raystream/<job id>/<when, ms>-<process, such as slot-3>.out  ->  worker-<id>-<...>.out

A client asks one small actor on each node, which ends with it.  What a node has written goes with the node.
"""

import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raystream.clock import SystemClock
from raystream.cluster import _ray_compat as compat
from raystream.cluster.process import UNRECORDED
from raystream.ids import JobId

logger = logging.getLogger(__name__)

READ_BYTES_MAX = 4 << 20
"""Most that a node returns at once."""
READ_TIMEOUT_S = 30.0
"""Time that a node has to answer; another one answers all the same."""

_DIRECTORY = "raystream"
_STREAMS = ("out", "err")
_MARKS_OF_RAY = (b":job_id:", b":actor_name:", b":task_name:")
"""What Ray writes into the files for itself."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line that a process of the job has written."""

    process: str
    """Such as `master` or `slot-3`."""
    text: str


# ---- where the job runs -----------------------------------------------------


def link_logs(job_id: JobId, process: str) -> None:
    """Make the output of this process known as that of a process of the job; best effort."""
    worker = ray.get_runtime_context().get_worker_id()
    with suppress(OSError):
        logs = Path(compat.logs_directory())
        directory = logs / _DIRECTORY / job_id
        directory.mkdir(parents=True, exist_ok=True)
        for stream in _STREAMS:
            for file in logs.glob(f"worker-{worker}-*-{os.getpid()}.{stream}"):
                (directory / f"{SystemClock().wall_ms()}-{process}.{stream}").symlink_to(file)


class NodeLogsActor:
    """Reads the logs of jobs on one node."""

    def __init__(self) -> None:
        self._root = Path(compat.logs_directory()) / _DIRECTORY

    def place(self) -> str:
        """Return which directory it is: nodes on one machine may have one in common."""
        return f"{socket.gethostname()}:{self._root}"

    def jobs(self) -> list[str]:
        """Return the ids of the jobs of which there are logs."""
        with suppress(FileNotFoundError):
            return sorted(path.name for path in self._root.iterdir())
        return []

    def read(self, job_id: str, positions: Mapping[str, int]) -> list[tuple[str, int, bytes]]:
        """Return what was written behind these positions: name, next position and whole lines of each log.

        Args:
            job_id: the job.
            positions: bytes that the client has got of each log.
        """
        found: list[tuple[str, int, bytes]] = []
        room_bytes = READ_BYTES_MAX
        with suppress(FileNotFoundError):
            for path in sorted((self._root / job_id).iterdir()):
                position = positions.get(path.name, 0)
                with suppress(OSError):
                    lines = _whole_lines(path, position, room_bytes)
                    room_bytes -= len(lines)
                    if lines:
                        found.append((path.name, position + len(lines), lines))
        return found


def _whole_lines(path: Path, position: int, bytes_max: int) -> bytes:
    with path.open("rb") as file:
        file.seek(position)
        piece = file.read(bytes_max)
    end = piece.rfind(b"\n") + 1
    # A line that fills all of the room is not waited for.
    return piece[:end] if end or len(piece) < READ_BYTES_MAX else piece


# ---- where the client is ----------------------------------------------------


class ClusterLogs:
    """The logs of jobs on all nodes of the cluster that this process is connected to."""

    def __init__(self) -> None:
        self._readers: dict[str, Any] = {}  # By node.
        self._places: dict[str, str] = {}  # Log directory of each node that has said where it is.
        self._positions: dict[tuple[str, str], int] = {}  # By log directory and log.

    def jobs(self) -> set[str]:
        """Return the ids of the jobs of which there are logs."""
        return {job for _, jobs in self._ask("jobs") for job in jobs}

    def read(self, job_id: str) -> Iterator[LogLine]:
        """Yield what was written since the last call, process by process; the oldest process first."""
        while True:
            logs = [(place, *log) for place, found in self._ask("read", job_id) for log in found]
            if not logs:
                return
            for place, name, position, lines in sorted(logs, key=lambda log: log[1]):
                self._positions[place, name] = position
                process = name.partition("-")[2].rpartition(".")[0]
                for line in lines.splitlines():
                    if not line.startswith(_MARKS_OF_RAY):
                        yield LogLine(process, line.decode("utf-8", "replace"))

    def _ask(self, method: str, *arguments: Any) -> Iterator[tuple[str, Any]]:
        """Yield each log directory, and what one of the nodes that have it answers."""
        known: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        nodes = sorted(node["NodeID"] for node in known if node["Alive"])
        for node, place in self._answers({node: ("place",) for node in nodes if node not in self._places}):
            self._places[node] = place
        # Nodes on one machine may share a directory; one of them is enough.
        chosen = {self._places[node]: node for node in reversed(nodes) if node in self._places}
        questions = {
            node: (method, *arguments, self._read_so_far(place)) if method == "read" else (method, *arguments)
            for place, node in chosen.items()
        }
        for node, answer in self._answers(questions):
            yield self._places[node], answer

    def _read_so_far(self, place: str) -> dict[str, int]:
        return {name: position for (where, name), position in self._positions.items() if where == place}

    def _answers(self, questions: Mapping[str, tuple[Any, ...]]) -> Iterator[tuple[str, Any]]:
        """Yield node and answer of each node that answers."""
        asked = {}
        for node, (method, *arguments) in questions.items():
            if node not in self._readers:
                self._readers[node] = _start(node)
            asked[node] = getattr(self._readers[node], method).remote(*arguments)
        for node, question in asked.items():
            try:
                yield node, ray.get(question, timeout=READ_TIMEOUT_S)
            except (
                RayError
            ) as error:  # The node has gone, or is about to; another time it has another reader.
                logger.debug("node does not show its logs", extra={"node": node, "cause": repr(error)})
                del self._readers[node]
                self._places.pop(node, None)


def _start(node: str) -> Any:
    actor_class: Any = ray.remote(NodeLogsActor)
    strategy = NodeAffinitySchedulingStrategy(node, soft=False)
    return actor_class.options(num_cpus=0, scheduling_strategy=strategy, **UNRECORDED).remote()
