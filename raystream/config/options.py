"""Every option of a job, typed.

`JobConfig` is what the rest of raystream is given: frozen, picklable, checked.  The text
under a field is what `raystream config` prints as the meaning of its key.  Where values
come from is the business of `raystream.config.load`.

Two defaults depend on other options and are filled in when the object is made: where
checkpoints are stored, and the restart strategy.

Sources: Flink's `CheckpointingOptions`, `RestartStrategyOptions`, `StateRecoveryOptions`,
`PipelineOptions` and `ExecutionOptions`; a field says where its default is another one.
"""

from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from raystream.config.kinds import Boolean, Choice, Duration, Integer, Location, Number, Size
from raystream.config.schema import Section, option, values
from raystream.keygroup import KEY_GROUPS_MAX

INLINE_THRESHOLD_BYTES_MAX = 1 << 20

Runner = Literal["ray", "local"]
Placement = Literal["pack", "spread"]
CheckpointingMode = Literal["exactly-once", "at-least-once"]
CheckpointStorage = Literal["jobmanager", "filesystem"]
Retention = Literal["retain-on-cancellation", "delete-on-cancellation"]
RestartType = Literal["none", "fixed-delay", "failure-rate", "exponential-delay"]
ClaimMode = Literal["no-claim", "claim"]
BackendType = Literal["hashmap", "rocksdb"]


@dataclass(frozen=True, kw_only=True)
class PipelineConfig(Section):
    """How records move between operators."""

    copy_records: bool = option("pipeline.copy-records", Boolean(), default=False)
    """Copy each record when it is emitted: a function may then change its input and what it has emitted."""
    buffer_timeout_ms: int = option("execution.buffer-timeout", Duration(), default=10)
    """Longest time that a record waits for its batch to fill before it is sent on (Flink: 100ms)."""
    auto_watermark_interval_ms: int = option(
        "pipeline.auto-watermark-interval", Duration(minimum=1), default=200
    )
    """Time between two watermarks of a watermark strategy."""


@dataclass(frozen=True, kw_only=True)
class SlotConfig(Section):
    """What a slot asks of the cluster."""

    cpus: float = option("slot.cpus", Number(), default=1.0)
    """CPUs that each slot reserves whose slot-sharing group does not say; 0 places slots without regard to
    CPUs."""
    placement: Placement = option("slot.placement", Choice(get_args(Placement)), default="pack")
    """pack puts the slots of a job on few nodes, spread on many; on those that have room, in any case."""
    spares: int = option("slot.spares", Integer(), default=0)
    """Processes that each node with slots of the job keeps ready, to replace one that is lost in less time
    (Flink: slotmanager.redundant-taskmanager-num, of a whole cluster)."""


@dataclass(frozen=True, kw_only=True)
class HeartbeatConfig(Section):
    """How a slot that no longer answers is noticed."""

    interval_ms: int = option("heartbeat.interval", Duration(minimum=1), default=1_000)
    """Time between two heartbeats of a slot (Flink: 10s)."""
    timeout_ms: int = option("heartbeat.timeout", Duration(minimum=1), default=30_000)
    """Silence after which a slot is given up and the attempt fails (Flink: 50s)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.timeout_ms <= self.interval_ms:
            raise self.conflict(
                "a slot would be given up between two heartbeats",
                ("interval_ms", "timeout_ms"),
                hint="make heartbeat.timeout several times heartbeat.interval",
            )


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig(Section):
    """When checkpoints are taken, and what is kept of them."""

    interval_ms: int | None = option("execution.checkpointing.interval", Duration(minimum=1), default=None)
    """Time between the starts of two periodic checkpoints; none switches checkpointing off."""
    mode: CheckpointingMode = option(
        "execution.checkpointing.mode",
        Choice(get_args(CheckpointingMode)),
        default="exactly-once",
    )
    """What a restart guarantees for the effects of every record on state: exactly-once; or at-least-once,
    where nothing ever waits for a barrier."""
    unaligned: bool = option("execution.checkpointing.unaligned.enabled", Boolean(), default=False)
    """Let barriers overtake queued records, which are stored with the checkpoint: under back-pressure it is
    not as slow as the queues.  Savepoints stay aligned, and inputs that are broadcast, forwarded, rescaled
    or custom."""
    aligned_timeout_ms: int = option(
        "execution.checkpointing.aligned-checkpoint-timeout", Duration(), default=0
    )
    """Unaligned: age up to which a checkpoint stays aligned; only then its barriers overtake."""
    timeout_ms: int = option("execution.checkpointing.timeout", Duration(minimum=1), default=600_000)
    """Age at which a checkpoint that is not complete is given up."""
    min_pause_ms: int = option("execution.checkpointing.min-pause", Duration(), default=0)
    """Least time from the completion of a checkpoint to the start of the next periodic one."""
    max_concurrent: int = option(
        "execution.checkpointing.max-concurrent-checkpoints", Integer(minimum=1), default=1
    )
    """Number of checkpoints that may be under way at the same time; savepoints start regardless."""
    tolerable_failures: int = option(
        "execution.checkpointing.tolerable-failed-checkpoints", Integer(), default=3
    )
    """Consecutive failed checkpoints that the job survives; expired ones do not count (Flink: 0)."""
    retention: Retention = option(
        "execution.checkpointing.externalized-checkpoint-retention",
        Choice(get_args(Retention), later=("no-externalized-checkpoints",)),
        default="retain-on-cancellation",
    )
    """What happens to the retained checkpoints when the job is cancelled (Flink: none is kept at all)."""
    num_retained: int = option(
        "execution.checkpointing.num-retained",
        Integer(minimum=1),
        default=1,
        aliases=("state.checkpoints.num-retained",),
    )
    """Number of completed checkpoints that are kept, the newest ones."""
    storage: CheckpointStorage = option(
        "execution.checkpointing.storage",
        Choice(get_args(CheckpointStorage)),
        default=None,
        default_text="filesystem if a directory is set, else jobmanager",
        aliases=("state.checkpoint-storage",),
    )
    """Where checkpoints are kept: as files, or in the memory of the job master and lost with it."""
    directory: str | None = option(
        "execution.checkpointing.dir", Location(), default=None, aliases=("state.checkpoints.dir",)
    )
    """Directory for checkpoints, a path or URL that the job master and every slot can reach."""
    savepoint_directory: str | None = option(
        "execution.checkpointing.savepoint-dir", Location(), default=None, aliases=("state.savepoints.dir",)
    )
    """Directory for savepoints that are requested without one."""
    incremental: bool = option(
        "execution.checkpointing.incremental",
        Boolean(),
        default=True,
        aliases=("state.backend.incremental",),
    )
    """rocksdb: a checkpoint writes only files that are new since the last one, and refers to the others; it
    restores on rocksdb only.  Savepoints are always whole."""
    local_backup: bool = option(
        "execution.checkpointing.local-backup.enabled",
        Boolean(),
        default=True,
        aliases=("state.backend.local-recovery",),
    )
    """Keep a copy of the newest checkpoint on the local disk of each node, in state.backend.rocksdb.localdir,
    for a recovery that need not read the checkpoint directory; not where that is on the same disk."""
    inline_threshold_bytes: int = option(
        "execution.checkpointing.data-inline-threshold",
        Size(maximum=INLINE_THRESHOLD_BYTES_MAX),
        default=20 << 10,
        aliases=("state.storage.fs.memory-threshold",),
    )
    """State below this size is written into the checkpoint's metadata, not into a file of its own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.storage is None:  # The user may leave it to us; once made it is always set.
            object.__setattr__(self, "storage", "filesystem" if self.directory else "jobmanager")
        if self.interval_ms is not None and self.interval_ms < self.min_pause_ms:
            raise self.conflict(
                "checkpoints would start more often than the pause between them allows",
                ("interval_ms", "min_pause_ms"),
                hint="make the interval at least as long as the pause",
            )
        if self.unaligned and self.mode == "at-least-once":
            raise self.conflict(
                "barriers that are only counted have nothing to overtake",
                ("unaligned", "mode"),
                hint="set execution.checkpointing.mode to exactly-once, or unaligned.enabled to false",
            )
        if self.unaligned and self.max_concurrent > 1:
            raise self.conflict(
                "unaligned checkpoints are taken one at a time",
                ("unaligned", "max_concurrent"),
                hint="set execution.checkpointing.max-concurrent-checkpoints to 1",
            )
        if self.storage == "filesystem" and self.directory is None:
            raise self.conflict(
                "checkpoints as files need a directory",
                ("storage", "directory"),
                hint="set execution.checkpointing.dir to a directory that all nodes share",
            )
        if self.storage == "jobmanager" and self.directory is not None:
            raise self.conflict(
                "checkpoints in the job master's memory would leave the directory empty",
                ("storage", "directory"),
                hint="set execution.checkpointing.storage to filesystem, or the directory to none",
            )


@dataclass(frozen=True, kw_only=True)
class RestartConfig(Section):
    """How a failed job is started again."""

    type: RestartType = option(
        "restart-strategy.type",
        Choice(get_args(RestartType)),
        default=None,
        default_text="exponential-delay with checkpointing, else none",
    )
    """none fails the job at the first failure, fixed-delay restarts it a number of times, failure-rate
    until it fails too often, exponential-delay with longer and longer pauses, by default for ever."""
    attempts: int = option("restart-strategy.fixed-delay.attempts", Integer(), default=1)
    """fixed-delay: number of restarts before the job fails for good."""
    delay_ms: int = option("restart-strategy.fixed-delay.delay", Duration(), default=1_000)
    """fixed-delay: pause before each restart."""
    failures_per_interval_max: int = option(
        "restart-strategy.failure-rate.max-failures-per-interval", Integer(minimum=1), default=1
    )
    """failure-rate: failures within the interval that the job survives; those during a pause count once."""
    failure_interval_ms: int = option(
        "restart-strategy.failure-rate.failure-rate-interval", Duration(minimum=1), default=60_000
    )
    """failure-rate: time over which failures are counted."""
    failure_rate_delay_ms: int = option("restart-strategy.failure-rate.delay", Duration(), default=1_000)
    """failure-rate: pause before each restart."""
    initial_backoff_ms: int = option(
        "restart-strategy.exponential-delay.initial-backoff", Duration(minimum=1), default=1_000
    )
    """exponential-delay: first pause, also after a quiet time; the first restart after a newly completed
    checkpoint is immediate."""
    max_backoff_ms: int = option(
        "restart-strategy.exponential-delay.max-backoff", Duration(minimum=1), default=60_000
    )
    """exponential-delay: longest pause."""
    multiplier: float = option(
        "restart-strategy.exponential-delay.backoff-multiplier", Number(minimum=1.0), default=1.5
    )
    """exponential-delay: factor from one pause to the next."""
    reset_threshold_ms: int = option(
        "restart-strategy.exponential-delay.reset-backoff-threshold", Duration(minimum=1), default=300_000
    )
    """exponential-delay: time without failure after which the pause is the first one again (Flink: 1h)."""
    jitter: float = option(
        "restart-strategy.exponential-delay.jitter-factor", Number(maximum=1.0), default=0.1
    )
    """exponential-delay: share of a pause that is added or taken off at random."""
    attempts_before_reset: int | None = option(
        "restart-strategy.exponential-delay.attempts-before-reset-backoff",
        Integer(minimum=1),
        default=None,
        default_text="unlimited",
    )
    """exponential-delay: restarts, immediate ones included, before the job fails for good; counted anew
    after a time without failure as long as reset-backoff-threshold."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_backoff_ms < self.initial_backoff_ms:
            raise self.conflict(
                "the longest pause before a restart is below the first one",
                ("initial_backoff_ms", "max_backoff_ms"),
                hint="raise max-backoff or lower initial-backoff",
            )
        if self.reset_threshold_ms < self.max_backoff_ms:
            raise self.conflict(
                "the pause before a restart would be reset while it is still waited for",
                ("max_backoff_ms", "reset_threshold_ms"),
                hint="make reset-backoff-threshold at least as long as max-backoff",
            )


@dataclass(frozen=True, kw_only=True)
class RecoveryConfig(Section):
    """What the job starts from."""

    path: str | None = option("execution.state-recovery.path", Location(), default=None)
    """Savepoint or checkpoint to start from: its directory, its `_metadata`, or `latest`."""
    claim_mode: ClaimMode = option(
        "execution.state-recovery.claim-mode",
        Choice(get_args(ClaimMode), later=("legacy",)),
        default="no-claim",
    )
    """no-claim never touches what the job started from; claim makes it the job's own, to be deleted."""
    allow_non_restored: bool = option(
        "execution.state-recovery.ignore-unclaimed-state", Boolean(), default=False
    )
    """Start even if the snapshot has state of operators that the program no longer has, and drop it."""
    allow_older: bool = option("execution.state-recovery.allow-older-checkpoint", Boolean(), default=False)
    """Let `latest`, and a job that recovers, pass over a snapshot with a missing or damaged file; what was
    committed since the older one comes twice.  For `latest` every file is read once more to find out."""


@dataclass(frozen=True, kw_only=True)
class BackendConfig(Section):
    """How keyed state is kept while the job runs."""

    type: BackendType = option(
        "state.backend.type",
        Choice(get_args(BackendType)),
        default="hashmap",
        aliases=("state.backend",),
    )
    """hashmap keeps state as Python objects in the memory of the slots, rocksdb on their local disks with a
    cache in front, so that there may be more of it than memory."""
    rocksdb_directory: str | None = option(
        "state.backend.rocksdb.localdir",
        Location(),
        default=None,
        default_text="node-local temporary directory",
    )
    """rocksdb: local directory of each node for state, a path; what is in it goes with the attempt."""
    rocksdb_managed_bytes: int = option(
        "state.backend.rocksdb.memory.managed-size", Size(minimum=1 << 20), default=256 << 20
    )
    """rocksdb: memory of a slot for blocks and write buffers, of all its operators together."""
    rocksdb_cache_bytes: int = option("state.backend.rocksdb.cache-size", Size(), default=64 << 20)
    """rocksdb: memory of a slot for the values in use, of all its operators together; those cost no access
    to RocksDB."""


@dataclass(frozen=True, kw_only=True)
class JobConfig(Section):
    """The whole configuration of a job."""

    parallelism: int = option("parallelism.default", Integer(minimum=1, maximum=KEY_GROUPS_MAX), default=1)
    """Number of subtasks of every operator that does not set its own, and so of slots."""
    max_parallelism: int | None = option(
        "pipeline.max-parallelism",
        Integer(minimum=1, maximum=KEY_GROUPS_MAX),
        default=None,
        default_text="derived from the parallelism, at least 128",
    )
    """Number of key groups, the upper bound of any later parallelism; stored in every snapshot."""
    runner: Runner = option("execution.runner", Choice(get_args(Runner)), default="ray")
    """ray runs slots as processes on a Ray cluster, local runs them all in this process."""
    cancellation_timeout_ms: int = option("task.cancellation.timeout", Duration(minimum=1), default=30_000)
    """Time that a subtask has to end when it is cancelled; then its process is killed (Flink: 3min)."""
    pipeline: PipelineConfig = field(default_factory=PipelineConfig)
    slot: SlotConfig = field(default_factory=SlotConfig)
    heartbeat: HeartbeatConfig = field(default_factory=HeartbeatConfig)
    checkpointing: CheckpointConfig = field(default_factory=CheckpointConfig)
    restart: RestartConfig = field(default_factory=RestartConfig)
    recovery: RecoveryConfig = field(default_factory=RecoveryConfig)
    backend: BackendConfig = field(default_factory=BackendConfig)
    explicit_keys: frozenset[str] = field(default=frozenset(), compare=False)
    """Keys that a file, the command line or a keyword argument has set, also to their default."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.restart.type is None:
            strategy: RestartType = "exponential-delay" if self.checkpointing.interval_ms else "none"
            object.__setattr__(self, "restart", replace(self.restart, type=strategy))
        if self.max_parallelism is not None and self.parallelism > self.max_parallelism:
            raise self.conflict(
                "parallelism is above max parallelism",
                ("parallelism", "max_parallelism"),
                hint="lower parallelism.default or raise pipeline.max-parallelism",
            )

    def effective(self) -> dict[str, str]:
        """Return every key with the text of its value; loading it gives an equal configuration."""
        return {declared.key: declared.format(value) for declared, value in values(self)}
