"""Configuration objects hold what the documentation promises and refuse what cannot work."""

import pickle
from dataclasses import FrozenInstanceError

import pytest

from raystream.config.options import (
    CheckpointConfig,
    HeartbeatConfig,
    JobConfig,
    RecoveryConfig,
    RestartConfig,
    SlotConfig,
)
from raystream.errors import ConfigError


def test_defaults_are_those_of_the_documentation():
    config = JobConfig()

    assert (config.parallelism, config.max_parallelism, config.runner) == (1, None, "ray")
    assert (config.pipeline.buffer_timeout_ms, config.pipeline.copy_records) == (10, False)
    assert (config.slot.cpus, config.cancellation_timeout_ms) == (1.0, 30_000)
    assert (config.heartbeat.interval_ms, config.heartbeat.timeout_ms) == (1_000, 30_000)
    assert config.backend.type == "hashmap"
    assert config.recovery == RecoveryConfig(path=None, claim_mode="no-claim", allow_non_restored=False)
    assert config.checkpointing == CheckpointConfig(
        interval_ms=None,
        mode="exactly-once",
        timeout_ms=600_000,
        min_pause_ms=0,
        max_concurrent=1,
        tolerable_failures=3,
        retention="retain-on-cancellation",
        num_retained=1,
        storage="jobmanager",
        directory=None,
        savepoint_directory=None,
        inline_threshold_bytes=20_480,
    )
    assert config.restart == RestartConfig(
        type="none",
        attempts=1,
        delay_ms=1_000,
        initial_backoff_ms=1_000,
        max_backoff_ms=60_000,
        multiplier=1.5,
        reset_threshold_ms=300_000,
        jitter=0.1,
    )


def test_checkpointing_brings_restarts_with_exponential_delay():
    assert JobConfig(checkpointing=CheckpointConfig(interval_ms=1_000)).restart.type == "exponential-delay"


def test_restart_strategy_that_was_chosen_stays():
    chosen = RestartConfig(type="fixed-delay", attempts=3)

    assert JobConfig(checkpointing=CheckpointConfig(interval_ms=1_000), restart=chosen).restart is chosen
    assert JobConfig(restart=chosen).restart is chosen


def test_directory_selects_storage_in_files():
    assert CheckpointConfig(directory="file:///checkpoints").storage == "filesystem"


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (lambda: JobConfig(parallelism=0), r"parallelism\.default: must be at least 1"),
        (lambda: JobConfig(parallelism=32_769), "must be at most 32768"),
        (lambda: JobConfig(max_parallelism=0), r"pipeline\.max-parallelism: must be at least 1"),
        (lambda: JobConfig(parallelism=4, max_parallelism=3), "parallelism is above max parallelism"),
        (lambda: JobConfig(parallelism="4"), "expected a whole number"),
        (lambda: JobConfig(parallelism=True), "expected a whole number"),
        (lambda: JobConfig(runner="flink"), "expected ray or local"),
        (lambda: SlotConfig(cpus=-1.0), r"slot\.cpus: must be at least 0"),
        (lambda: SlotConfig(cpus=float("nan")), "expected a number"),
        (lambda: HeartbeatConfig(interval_ms=500, timeout_ms=500), "given up between two heartbeats"),
        (lambda: CheckpointConfig(interval_ms=0), r"interval: must be at least 1ms"),
        (lambda: CheckpointConfig(interval_ms=9, min_pause_ms=10), "more often than the pause"),
        (lambda: CheckpointConfig(storage="filesystem"), "need a directory"),
        (lambda: CheckpointConfig(storage="jobmanager", directory="d"), "leave the directory empty"),
        (lambda: CheckpointConfig(mode="at-most-once"), "expected exactly-once or at-least-once"),
        (lambda: CheckpointConfig(inline_threshold_bytes=(1 << 20) + 1), "must be at most 1mb"),
        (lambda: CheckpointConfig(num_retained=0), "must be at least 1"),
        (lambda: CheckpointConfig(timeout_ms=None), "needs a value"),
        (lambda: CheckpointConfig(directory=" "), "expected a path"),
        (lambda: RestartConfig(initial_backoff_ms=2_000, max_backoff_ms=1_000), "below the first one"),
        (lambda: RestartConfig(reset_threshold_ms=1_000), "reset while it is still waited for"),
        (lambda: RestartConfig(multiplier=0.5), "backoff-multiplier: must be at least 1"),
        (lambda: RestartConfig(jitter=1.5), "jitter-factor: must be at most 1"),
    ],
)
def test_values_that_cannot_work_are_refused_when_the_object_is_made(make, cause):
    with pytest.raises(ConfigError, match=cause):
        make()


def test_conflict_names_both_keys_and_their_values():
    with pytest.raises(ConfigError) as caught:
        HeartbeatConfig(interval_ms=60_000)

    assert caught.value.context == {"heartbeat.interval": "1min", "heartbeat.timeout": "30s"}
    assert "several times heartbeat.interval" in caught.value.hint


def test_configuration_is_frozen_hashable_and_survives_pickling():
    config = JobConfig(parallelism=3, checkpointing=CheckpointConfig(directory="file:///d", interval_ms=50))

    assert pickle.loads(pickle.dumps(config)) == config
    assert {config: 1}[config] == 1
    with pytest.raises(FrozenInstanceError):
        config.parallelism = 4
