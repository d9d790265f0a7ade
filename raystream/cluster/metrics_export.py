"""Metrics of jobs on their way to Prometheus, by way of Ray: each node has an agent that is scraped.

Everything is a gauge for Ray, counts too.  What is a counter or a histogram there stays in the agent for
as long as the node lives, with the labels of every job that ever ran on it; a gauge that nobody sets
any more is gone after two of Ray's report intervals, 20 s unless configured.  So the series of a job,
a subtask or an attempt end by themselves, however that ended.

Each value that is given to Ray costs about 5 µs, so they are given once a second, and never by the thread
that processes records.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from ray.util.metrics import Gauge

from raystream.clock import Clock
from raystream.cluster.publication import Publication
from raystream.ids import JobId
from raystream.metrics import catalogue
from raystream.metrics.catalogue import BY_KEY, JOB_LABELS, OPERATOR_LABELS, exported_user_name
from raystream.metrics.reports import SubtaskMetrics
from raystream.runtime.coordinator_view import JobView, last_recoverable
from raystream.runtime.job_metrics import last_completed
from raystream.runtime.messages import Progress

logger = logging.getLogger(__name__)

EXPORT_INTERVAL_S = 1.0
LABEL_CHARACTERS_MAX = 200
USER_METRICS_MAX = 2_000
"""Names of user metrics that a process gives to Ray, which never forgets one."""


class RayGauges:
    """Sets values of metrics, each known to Ray from the first one on.

    Args:
        make: makes a gauge, of a name, a description and the names of its labels.
    """

    def __init__(self, make: Callable[[str, str, tuple[str, ...]], Any] = Gauge) -> None:
        self._make = make
        self._gauges: dict[str, Any] = {}

    def set(self, key: str, value: float, labels: Mapping[str, str]) -> None:
        """Set a metric of the catalogue, by its key."""
        metric = BY_KEY[key]
        gauge = self._gauges.get(metric.exported)
        if gauge is None:
            scoped = JOB_LABELS if metric.scope is catalogue.Scope.JOB else OPERATOR_LABELS
            description = f"{metric.meaning} ({metric.unit})"
            gauge = self._gauges[metric.exported] = self._make(metric.exported, description, scoped)
        gauge.set(value, tags=labels)

    def set_user(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """Set a metric of user code; one that is too many is left out."""
        exported = exported_user_name(name)
        gauge = self._gauges.get(exported)
        if gauge is None:
            if len(self._gauges) >= USER_METRICS_MAX:
                return
            gauge = self._gauges[exported] = self._make(exported, "counted by user code", OPERATOR_LABELS)
        gauge.set(value, tags=labels)


class SlotExporter:
    """Exports what a slot reports of its subtasks.

    Args:
        job_id: the job.
        gauges: takes the values.
    """

    def __init__(self, job_id: JobId, gauges: RayGauges | None = None) -> None:
        self._job_id = job_id
        self._gauges = gauges or RayGauges()

    def export(self, progress: Progress) -> None:
        """Set everything that a report has; what cannot be set is logged, and nothing else happens."""
        try:
            for subtask in progress.subtasks:
                self._export(progress.job_name, subtask)
        except Exception as error:  # Whatever becomes of metrics, the job goes on.
            logger.warning("metrics could not be given to Ray", exc_info=error)

    def _export(self, job_name: str, subtask: SubtaskMetrics) -> None:
        for operator in subtask.operators:
            labels = {
                "job_name": label(job_name),
                "job_id": self._job_id,
                "task": label(subtask.task),
                "operator": label(operator.name),
                "uid": label(operator.uid),
                "subtask": str(subtask.subtask),
            }
            for key, value in operator.values.items():
                self._gauges.set(key, value, labels)
            for name, value in operator.user.items():
                self._gauges.set_user(name, value, labels)


class JobExporter:
    """Exports the metrics of a whole job once a second, from a thread of its own, until it has ended.

    Args:
        publication: where the job master shows how the job stands.
        interval_ms: between two checkpoints; 0 when there are none.
        clock: says when the job was submitted, by how long it has lasted.
        gauges: takes the values.
    """

    def __init__(
        self,
        publication: Publication,
        *,
        interval_ms: int,
        clock: Clock,
        gauges: RayGauges | None = None,
    ) -> None:
        self._publication = publication
        self._interval_ms = interval_ms
        self._clock = clock
        self._submitted_ms: int | None = None
        self._gauges = gauges or RayGauges()

    def start(self) -> None:
        """Export in a thread."""
        threading.Thread(target=self._run, name="metrics", daemon=True).start()

    def _run(self) -> None:
        pause = threading.Event()
        while not (view := self._publication.view).status.terminal:
            self.export(view)
            pause.wait(EXPORT_INTERVAL_S)

    def export(self, view: JobView) -> None:
        """Set everything that a view has; what cannot be set is logged, and nothing else happens.

        Nothing is set while it is not known what the job did under an earlier master: counts would be zero.
        """
        if view.recovering:
            return
        if self._submitted_ms is None:  # Once, since a view may be older than the clock says.
            self._submitted_ms = self._clock.wall_ms() - view.duration_ms
        labels = {"job_name": label(view.name), "job_id": str(view.job_id)}
        try:
            for key, value in job_values(view, self._interval_ms, self._submitted_ms).items():
                self._gauges.set(key, value, labels)
        except Exception as error:  # As for slots.
            logger.warning("metrics of the job could not be given to Ray", exc_info=error)


def job_values(view: JobView, interval_ms: int, submitted_ms: int) -> dict[str, float]:
    """Return the metrics of scope JOB, by key.

    Args:
        view: how the job stands.
        interval_ms: between two checkpoints; 0 when there are none.
        submitted_ms: wall time.
    """
    completed, failed = view.checkpoint_counts
    values: dict[str, float] = {
        "num_restarts": view.restarts,
        "uptime": view.duration_ms,
        "number_of_completed_checkpoints": completed,
        "number_of_failed_checkpoints": failed,
        "last_checkpoint_completed_timestamp": submitted_ms,
    }
    if interval_ms:
        values["checkpoint_interval"] = interval_ms
    if (last := last_completed(view.checkpoints)) is not None:
        values["last_checkpoint_duration"] = last.duration_ms
        values["last_checkpoint_size"] = last.size_bytes
    if (point := last_recoverable(view.checkpoints)) is not None:
        values["last_checkpoint_completed_timestamp"] = point.triggered_ms + point.duration_ms
    return values


def label(text: str) -> str:
    r"""Return a text as Ray and Prometheus take it for the value of a label: printable ASCII, not too long.

    Example:
        >>> label("Zähler\n")
        'Z\\xe4hler\\n'
    """
    shown = "".join(one if " " <= one <= "~" else ascii(one)[1:-1] for one in text)
    return shown[:LABEL_CHARACTERS_MAX]
