"""Every metric that raystream has of itself: name, scope, unit and meaning.

A metric is called as in Flink.  Prometheus gets that name in lower case with underscores, since Ray's
exporter keeps no capitals, behind `raystream_` and Ray's own `ray_`: `numRecordsIn` is
`ray_raystream_num_records_in`.  The documentation's table and the tests of dashboard and alerts are made
from what stands here.
"""

import re
from dataclasses import dataclass
from enum import Enum

PREFIX = "raystream_"
"""Of every metric that is given to Ray, which puts `ray_` before it."""

USER_PREFIX = "raystream_user_"
"""Of the metrics that user code makes with `ctx.metrics`."""


class Scope(Enum):
    """What a metric has one value of."""

    JOB = "job"
    TASK = "task"
    """A subtask of a chain of operators; the labels name the first operator of the chain."""
    OPERATOR = "operator"
    """A subtask of an operator."""


JOB_LABELS = ("job_name", "job_id")
OPERATOR_LABELS = (*JOB_LABELS, "task", "operator", "uid", "subtask")
"""Labels of the other scopes: `task` is the chain, `operator` the operator's name and `uid` its uid."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric."""

    name: str
    """As Flink writes it."""
    scope: Scope
    unit: str
    meaning: str

    @property
    def key(self) -> str:
        """The name in lower case, as reports have it."""
        return snake_case(self.name)

    @property
    def exported(self) -> str:
        """The name that Ray is given."""
        return PREFIX + self.key


def snake_case(name: str) -> str:
    """Return a name in lower case with underscores.

    Example:
        >>> snake_case("numRecordsInPerSecond"), snake_case("cache_hits"), snake_case("HTTPErrors")
        ('num_records_in_per_second', 'cache_hits', 'http_errors')
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


NUM_RECORDS_IN = "num_records_in"
NUM_RECORDS_OUT = "num_records_out"
NUM_RECORDS_IN_PER_SECOND = "num_records_in_per_second"
NUM_RECORDS_OUT_PER_SECOND = "num_records_out_per_second"
NUM_DEAD_LETTERS = "num_dead_letters"
BUSY_TIME = "busy_time_ms_per_second"
BACK_PRESSURED_TIME = "back_pressured_time_ms_per_second"
IDLE_TIME = "idle_time_ms_per_second"
INPUT_WATERMARK = "current_input_watermark"
OUTPUT_WATERMARK = "current_output_watermark"
STATE_SIZE = "state_size"
CACHE_HIT_RATE = "cache_hit_rate"

_J, _T, _O = Scope.JOB, Scope.TASK, Scope.OPERATOR

METRICS = (
    Metric("numRecordsIn", _O, "records", "taken in; of a source, read"),
    Metric("numRecordsOut", _O, "records", "emitted, to side outputs too; of a sink, written"),
    Metric("numRecordsInPerSecond", _O, "records/s", "the same, over the last seconds"),
    Metric("numRecordsOutPerSecond", _O, "records/s", "the same, over the last seconds"),
    Metric("numDeadLetters", _O, "records", "on which the function raised and that became dead letters"),
    Metric("busyTimeMsPerSecond", _T, "ms/s", "time in which the chain ran"),
    Metric(
        "backPressuredTimeMsPerSecond", _T, "ms/s",
        "time in which it could not run for what is downstream: an output had no room, or the slot ran"
        " downstream chains while there was something to do",
    ),
    Metric(
        "idleTimeMsPerSecond", _T, "ms/s",
        "the rest: nothing to do, or the slot ran chains that are not downstream",
    ),
    Metric(
        "currentInputWatermark", _O, "ms since the epoch",
        "event time of the input; absent before the first watermark and behind the last",
    ),
    Metric("currentOutputWatermark", _O, "ms since the epoch", "likewise, of what is emitted"),
    Metric("stateSize", _O, "bytes", "stored size of the state in the last checkpoint or savepoint"),
    Metric(
        "cacheHitRate", _O, "0 to 1",
        "with `rocksdb`: share of accesses to keyed state, one for each record and state, that read nothing"
        " from RocksDB, over the last seconds",
    ),
    Metric("numRestarts", _J, "restarts", "how often the job was started again"),
    Metric("uptime", _J, "ms", "since the job was submitted"),
    Metric("numberOfCompletedCheckpoints", _J, "checkpoints", "and savepoints that are complete"),
    Metric("numberOfFailedCheckpoints", _J, "checkpoints", "and savepoints that failed"),
    Metric("lastCheckpointDuration", _J, "ms", "of the newest complete one, from trigger to log entry"),
    Metric("lastCheckpointSize", _J, "bytes", "of all its state, whenever it was written"),
    Metric(
        "lastCheckpointCompletedTimestamp", _J, "ms since the epoch",
        "when the newest one was complete that a failure goes back to, no savepoint; before the first one,"
        " when the job was submitted",
    ),
    Metric("checkpointInterval", _J, "ms", "`execution.checkpointing.interval`; absent when that is not set"),
)  # fmt: skip

BY_KEY = {metric.key: metric for metric in METRICS}


def exported_user_name(name: str) -> str:
    """Return the name that Ray is given for a metric of user code."""
    return USER_PREFIX + snake_case(name)
