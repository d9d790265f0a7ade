"""The configuration files that come with the project load, and say what their comments promise."""

from pathlib import Path

import pytest

from raystream.config.load import load_config

CONFIGS = Path(__file__).resolve().parents[3] / "configs"


def test_local_config_runs_in_one_process_with_checkpoints_in_memory():
    config = load_config(CONFIGS / "local.yaml")

    assert (config.runner, config.parallelism) == ("local", 2)
    assert (config.checkpointing.interval_ms, config.checkpointing.storage) == (1_000, "jobmanager")
    assert config.restart.type == "none"


def test_ray_config_keeps_durable_checkpoints_every_ten_seconds():
    config = load_config(CONFIGS / "ray-file.yaml")

    assert (config.runner, config.parallelism, config.max_parallelism) == ("ray", 2, 128)
    assert config.checkpointing.interval_ms == 10_000
    assert config.checkpointing.storage == "filesystem"
    assert config.checkpointing.directory.startswith("file://")
    assert config.checkpointing.retention == "retain-on-cancellation"
    assert (config.restart.type, config.restart.attempts) == ("fixed-delay", 10)


def test_hdfs_config_keeps_incremental_checkpoints_where_several_may_fail():
    config = load_config(CONFIGS / "rocksdb-hdfs.yaml")

    assert config.backend.type == "rocksdb"
    assert config.checkpointing.directory.startswith("hdfs://")
    assert config.checkpointing.incremental
    assert config.checkpointing.tolerable_failures == 3
    assert config.restart.type == "exponential-delay"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_config_loads_and_can_be_overridden(path):
    assert load_config(path, overrides={"parallelism.default": "1"}).parallelism == 1
