"""Files, command line and keyword arguments become one configuration; mistakes are named."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raystream.config.load import load_config
from raystream.config.options import CheckpointConfig, JobConfig, RestartConfig
from raystream.errors import ConfigError


@pytest.fixture
def config_file(tmp_path):
    def write(text):
        path = tmp_path / "job.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_nothing_given_is_the_defaults():
    assert load_config() == JobConfig()
    assert load_config().explicit_keys == frozenset()


@pytest.mark.parametrize(
    "text",
    [
        "execution.checkpointing.interval: 30s\nexecution.checkpointing.min-pause: 5s\n",
        "execution:\n  checkpointing:\n    interval: 30s\n    min-pause: 5s\n",
        "execution.checkpointing:\n  interval: 30s\nexecution:\n  checkpointing.min-pause: 5s\n",
    ],
)
def test_keys_may_be_flat_nested_or_both(config_file, text):
    checkpointing = load_config(config_file(text)).checkpointing

    assert (checkpointing.interval_ms, checkpointing.min_pause_ms) == (30_000, 5_000)


def test_keyword_wins_over_command_line_over_file_over_default(config_file):
    path = config_file("parallelism.default: 2\nslot.cpus: 0.25\nexecution.runner: local\n")

    config = load_config(
        path,
        overrides={"parallelism.default": "3", "slot.cpus": "0.5"},
        keywords={"parallelism_default": 4},
    )

    assert (config.parallelism, config.slot.cpus, config.runner) == (4, 0.5, "local")
    assert config.pipeline.buffer_timeout_ms == 10
    assert config.explicit_keys == {"parallelism.default", "slot.cpus", "execution.runner"}


def test_key_set_to_its_default_counts_as_set():
    assert load_config({"parallelism.default": 1}).explicit_keys == {"parallelism.default"}


def test_python_values_are_taken_as_they_are(tmp_path):
    config = load_config(
        keywords={
            "execution_checkpointing_interval": timedelta(minutes=1),
            "execution_checkpointing_dir": tmp_path,
            "pipeline_copy_records": True,
            "slot_cpus": 2,
        }
    )

    assert config.checkpointing.interval_ms == 60_000
    assert config.checkpointing.directory == str(tmp_path)
    assert (config.pipeline.copy_records, config.slot.cpus) == (True, 2.0)


def test_none_on_the_command_line_takes_back_what_the_file_sets(config_file):
    path = config_file("execution.checkpointing: {interval: 10s, dir: /checkpoints}\n")

    config = load_config(
        path, overrides={"execution.checkpointing.interval": "none", "execution.checkpointing.dir": "none"}
    )

    assert config == JobConfig()


def test_none_is_a_restart_strategy_and_not_the_absence_of_one():
    config = load_config({"execution.checkpointing.interval": "1s", "restart-strategy.type": "none"})

    assert config.restart.type == "none"


def test_words_may_be_spelt_as_in_flink():
    config = load_config(
        {
            "execution.checkpointing.mode": "EXACTLY_ONCE",
            "execution.checkpointing.externalized-checkpoint-retention": "DELETE_ON_CANCELLATION",
            "execution.state-recovery.claim-mode": "CLAIM",
        }
    )

    assert config.checkpointing.mode == "exactly-once"
    assert config.checkpointing.retention == "delete-on-cancellation"
    assert config.recovery.claim_mode == "claim"


def test_older_names_of_flink_are_accepted():
    config = load_config(
        {
            "state.backend": "hashmap",
            "state.checkpoints.dir": "file:///checkpoints",
            "state.savepoints.dir": "file:///savepoints",
            "state.checkpoint-storage": "filesystem",
            "state.checkpoints.num-retained": 3,
            "state.storage.fs.memory-threshold": "1kb",
            "state.backend.incremental": "false",
            "state.backend.local-recovery": "false",
        }
    )

    assert config.checkpointing == CheckpointConfig(
        directory="file:///checkpoints",
        savepoint_directory="file:///savepoints",
        storage="filesystem",
        num_retained=3,
        inline_threshold_bytes=1_024,
        incremental=False,
        local_backup=False,
    )
    assert "state.backend.type" in config.explicit_keys


def test_older_and_newer_name_in_one_place_are_an_error():
    with pytest.raises(ConfigError, match=r"state\.backend\.type: set twice"):
        load_config({"state.backend": "hashmap", "state": {"backend": {"type": "hashmap"}}})


def test_older_name_on_the_command_line_wins_over_the_newer_one_in_a_file():
    config = load_config(
        {"execution.checkpointing.num-retained": 2}, overrides={"state.checkpoints.num-retained": "5"}
    )

    assert config.checkpointing.num_retained == 5


@pytest.mark.parametrize(
    ("misspelt", "nearest"),
    [
        ("execution.checkpointing.intervall", "execution.checkpointing.interval"),
        ("checkpointing.interval", "execution.checkpointing.interval"),
        ("parallelism", "parallelism.default"),
        ("state.backend.typ", "state.backend.type"),
        ("pipeline.max-paralelism", "pipeline.max-parallelism"),
    ],
)
def test_key_that_does_not_exist_is_an_error_that_names_the_nearest(misspelt, nearest):
    for give in ({"source": {misspelt: "1"}}, {"overrides": {misspelt: "1"}}):
        with pytest.raises(ConfigError) as caught:
            load_config(**give)
        assert caught.value.context["key"] == misspelt
        assert f"did you mean {nearest}?" in caught.value.hint


@pytest.mark.parametrize(
    ("group", "value", "meant"),
    [
        ("execution.checkpointing", "1s", "execution.checkpointing.interval"),
        ("execution.checkpointing", "/checkpoints", "execution.checkpointing.dir"),
        ("execution", "local", "execution.runner"),
        ("restart-strategy", "fixed-delay", "restart-strategy.type"),
        ("restart-strategy.fixed-delay", "5", "restart-strategy.fixed-delay.attempts"),
        ("slot", 2, "slot.cpus"),
    ],
)
def test_value_for_a_group_of_keys_is_an_error_that_names_the_first_one_to_take_it(group, value, meant):
    for give in ({"source": {group: value}}, {"overrides": {group: value}}):
        with pytest.raises(ConfigError, match="no configuration key has this name") as caught:
            load_config(**give)
        assert f"did you mean {meant}?" in caught.value.hint


def test_value_for_a_group_of_keys_as_a_keyword_is_an_error_in_the_spelling_of_keywords():
    with pytest.raises(ConfigError, match=r"did you mean execution_checkpointing_interval\?"):
        load_config(keywords={"execution_checkpointing": "1s"})


def test_nested_key_that_does_not_exist_is_named_in_full(config_file):
    path = config_file("execution:\n  checkpointing:\n    intervall: 1s\n")

    with pytest.raises(ConfigError) as caught:
        load_config(path)

    assert caught.value.context == {"key": "execution.checkpointing.intervall", "where": str(path)}


def test_keyword_that_does_not_exist_is_an_error_in_the_spelling_of_keywords():
    with pytest.raises(ConfigError, match=r"did you mean slot_cpus\?"):
        load_config(keywords={"slot_cpu": 1})


@pytest.mark.parametrize(
    ("key", "written", "cause"),
    [
        ("parallelism.default", "two", "expected a whole number"),
        ("parallelism.default", 1.5, "expected a whole number"),
        ("parallelism.default", None, "needs a value"),
        ("slot.cpus", "many", "expected a number"),
        ("pipeline.copy-records", "yes", "expected true or false"),
        ("execution.buffer-timeout", "10 parsecs", "expected a duration"),
        ("execution.checkpointing.interval", [1], "expected a duration"),
        ("execution.checkpointing.interval", {"seconds": 1}, "expected a duration"),
        ("execution.checkpointing.data-inline-threshold", "2mb", "must be at most 1mb"),
        ("execution.checkpointing.dir", 5, "expected a path"),
        ("execution.runner", False, "expected ray or local"),
    ],
)
def test_value_that_a_key_cannot_have_is_an_error_that_says_where_it_stands(key, written, cause):
    with pytest.raises(ConfigError, match=f"{key}: {cause}") as caught:
        load_config({key: written})

    assert caught.value.context == {"value": written, "where": "configuration mapping"}


@pytest.mark.parametrize(
    ("key", "written"),
    [
        ("execution.checkpointing.externalized-checkpoint-retention", "NO_EXTERNALIZED_CHECKPOINTS"),
    ],
)
def test_value_whose_feature_is_missing_is_refused_and_never_ignored(key, written):
    with pytest.raises(ConfigError, match="not supported in this version"):
        load_config({key: written})


def test_keys_whose_feature_is_missing_may_be_set_to_their_defaults():
    config = load_config(
        {
            "execution.checkpointing.incremental": True,
            "state.backend.rocksdb.memory.managed-size": "256mb",
        }
    )

    assert config == JobConfig()


def test_restart_strategies_are_configured_by_the_keys_of_flink():
    rate = load_config(
        {
            "restart-strategy.type": "failure-rate",
            "restart-strategy.failure-rate.max-failures-per-interval": 5,
            "restart-strategy.failure-rate.failure-rate-interval": "5min",
            "restart-strategy.failure-rate.delay": "5s",
        }
    ).restart
    limited = load_config({"restart-strategy.exponential-delay.attempts-before-reset-backoff": "7"}).restart
    unlimited = {"restart-strategy.exponential-delay.attempts-before-reset-backoff": "unlimited"}

    assert rate.type == "failure-rate"
    assert (rate.failures_per_interval_max, rate.failure_interval_ms) == (5, 300_000)
    assert rate.failure_rate_delay_ms == 5_000
    assert limited.attempts_before_reset == 7
    assert load_config(unlimited) == JobConfig()


def test_file_that_does_not_exist_is_one_line_of_cause_and_one_of_advice(tmp_path):
    with pytest.raises(ConfigError, match="configuration file does not exist") as caught:
        load_config(tmp_path / "absent.yaml")

    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("a: [1", "is not YAML"),
        ("- a\n- b\n", "holds no keys"),
        ("just words", "holds no keys"),
        ("execution: &loop\n  checkpointing: *loop\n", "no configuration key has this name"),
        ("1: 2\n", "no configuration key has this name"),
    ],
)
def test_file_that_is_no_configuration_is_refused(config_file, text, cause):
    with pytest.raises(ConfigError, match=cause):
        load_config(config_file(text))


def test_file_that_is_not_yaml_is_one_line_of_cause_that_says_where_and_one_of_advice(config_file):
    path = config_file("# raystream\n\nStream processing with\nthe guarantees of Flink: none\n\n```console\n")

    with pytest.raises(ConfigError, match="configuration file is not YAML") as caught:
        load_config(path)

    assert caught.value.context == {
        "path": str(path),
        "line": 4,
        "cause": "mapping values are not allowed here",
    }
    assert caught.value.hint.startswith("give a YAML file with one `key: value` per line")
    assert len(str(caught.value).splitlines()) == 2


def test_file_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"\xff\xfe\x00")

    with pytest.raises(ConfigError, match="could not be read"):
        load_config(path)


def test_empty_file_is_the_defaults(config_file):
    assert load_config(config_file("# nothing yet\n")) == JobConfig()


def test_configuration_object_is_the_lowest_layer():
    base = JobConfig(parallelism=2, restart=RestartConfig(type="fixed-delay", attempts=5))

    config = load_config(base, overrides={"parallelism.default": "6"})

    assert config.parallelism == 6
    assert config.restart == base.restart


def test_configuration_object_keeps_defaults_that_depend_on_other_keys_open():
    base = load_config({"parallelism.default": 2})

    config = load_config(base, overrides={"execution.checkpointing.interval": "1s"})

    assert config.restart.type == "exponential-delay"
    assert config.explicit_keys == {"parallelism.default", "execution.checkpointing.interval"}


@given(
    st.builds(
        JobConfig,
        parallelism=st.integers(1, 100),
        max_parallelism=st.none() | st.integers(100, 32_768),
        runner=st.sampled_from(["ray", "local"]),
        checkpointing=st.builds(
            CheckpointConfig,
            interval_ms=st.none() | st.integers(1_000, 10**9),
            min_pause_ms=st.integers(0, 1_000),
            directory=st.none() | st.sampled_from(["file:///a", "b/c"]),
            inline_threshold_bytes=st.integers(0, 1 << 20),
        ),
        restart=st.builds(
            RestartConfig,
            type=st.sampled_from([None, "none", "fixed-delay", "exponential-delay"]),
            multiplier=st.floats(1.0, 10.0),
            jitter=st.floats(0.0, 1.0),
        ),
    )
)
def test_effective_text_loads_as_an_equal_configuration(config):
    assert load_config(config.effective()) == config
    assert load_config(overrides=config.effective()) == config
