"""An environment gathers configuration, plans, and submits one job after the other."""

import logging
from pathlib import Path

import pytest

from raystream import ConfigError, GraphError, JobConfig, JobStatus, StreamEnvironment
from raystream.api import ambient
from raystream.api.ambient import Ambient
from raystream.connectors.basic import DiscardSink
from raystream.connectors.files import FileSink
from raystream.testing.state_rows import row
from tests.unit.api.fakes import FakeRunner, FakeSink, FakeSource


@pytest.fixture
def runner():
    return FakeRunner()


def job(env, **source):
    env.from_source(FakeSource(**source), uid="source").sink_to(FakeSink(), uid="sink")
    return env


@pytest.mark.parametrize("method", ["execute", "submit"])
@pytest.mark.parametrize("name", [5, b"job", Path("job"), "\ud800", " "], ids=repr)
def test_name_of_a_job_that_no_snapshot_can_hold_is_refused(runner, method, name):
    env = job(StreamEnvironment(runner=runner))

    with pytest.raises(GraphError, match="name of a job is not a text"):
        getattr(env, method)(name)
    assert runner.submissions == []


# ---- configuration


def test_keywords_win_over_definitions_those_over_files_and_those_over_the_argument(tmp_path):
    file = tmp_path / "job.yaml"
    file.write_text("slot.cpus: 2\nparallelism.default: 2\npipeline.max-parallelism: 20\n")
    argument = {
        "slot.cpus": 1,
        "parallelism.default": 1,
        "pipeline.max-parallelism": 10,
        "heartbeat.interval": "2s",
    }

    with ambient.use(Ambient(config_file=file, definitions={"slot.cpus": "3", "parallelism.default": "3"})):
        config = StreamEnvironment(argument, parallelism=4).config

    assert config.heartbeat.interval_ms == 2_000
    assert config.max_parallelism == 20
    assert config.slot.cpus == 3
    assert config.parallelism == 4


def test_any_key_is_a_keyword():
    env = StreamEnvironment(execution_checkpointing_interval="30s", slot_cpus=0.5)

    assert env.config.checkpointing.interval_ms == 30_000
    assert env.config.slot.cpus == 0.5


def test_ready_made_configuration_is_taken():
    assert StreamEnvironment(JobConfig(parallelism=3)).config.parallelism == 3


def test_misspelt_keyword_names_the_nearest_key():
    with pytest.raises(ConfigError) as raised:
        StreamEnvironment(execution_checkpointing_intervall="30s")

    assert "execution_checkpointing_interval" in raised.value.hint


def test_options_of_the_command_line_are_those_of_their_keys():
    options = Ambient(
        parallelism=4,
        runner_name="local",
        restore_path="/savepoints/x",
        claim_mode="claim",
        allow_non_restored=True,
        allow_older=True,
    )
    with ambient.use(options):
        config = StreamEnvironment().config

    assert (config.parallelism, config.runner) == (4, "local")
    assert (config.recovery.path, config.recovery.claim_mode) == ("/savepoints/x", "claim")
    assert config.recovery.allow_non_restored
    assert config.recovery.allow_older


def test_options_of_the_command_line_end_with_the_script():
    with ambient.use(Ambient(parallelism=4)):
        pass

    assert StreamEnvironment().config.parallelism == 1


# ---- submission


def test_execute_returns_what_became_of_the_job(runner):
    result = job(StreamEnvironment(runner=runner)).execute("access log count")

    (submission,) = runner.submissions
    assert submission.name == "access log count"
    assert result.job_id == submission.job_id
    assert (result.status, result.records_in, result.records_out) == (JobStatus.FINISHED, 3, 2)


def test_runner_of_the_command_line_takes_every_job(runner):
    with ambient.use(Ambient(runner=runner, address="ray://head:10001")) as options:
        job(StreamEnvironment(runner="local")).execute("a")
        job(StreamEnvironment(runner=FakeRunner())).execute("b")

    assert [submission.name for submission in runner.submissions] == ["a", "b"]
    assert {submission.address for submission in runner.submissions} == {"ray://head:10001"}
    assert options.submitted == [submission.job_id for submission in runner.submissions]


def test_detached_execute_returns_when_the_job_runs():
    runner = FakeRunner(prepare={"status": JobStatus.RUNNING})

    with ambient.use(Ambient(runner=runner, detached=True)):
        result = job(StreamEnvironment()).execute("a")

    assert result.status is JobStatus.RUNNING
    assert JobStatus.RUNNING in runner.handles[0].waits[0][1]
    assert runner.submissions[0].detached


def test_one_environment_runs_jobs_one_after_the_other(runner):
    env = StreamEnvironment(runner=runner)
    job(env).execute("first")
    job(env).execute("second")

    first, second = (submission.plan for submission in runner.submissions)
    assert [len(plan.vertices) for plan in (first, second)] == [1, 1]


def test_execute_without_operators_is_refused(runner):
    with pytest.raises(GraphError, match="no operators"):
        StreamEnvironment(runner=runner).execute("empty")

    assert runner.submissions == []


def test_refused_job_can_be_completed_and_submitted_again(runner):
    env = StreamEnvironment(runner=runner)
    stream = env.from_source(FakeSource(), uid="x")
    stream.sink_to(FakeSink(), uid="sink")
    runner.submit = lambda submission: (_ for _ in ()).throw(ConfigError("no"))
    with pytest.raises(ConfigError):
        env.execute("first")

    assert stream.map(len) is not None


@pytest.mark.parametrize("argument", [FakeSource, "access.log", FakeSink()])
def test_what_is_no_source_is_refused(argument):
    with pytest.raises(GraphError, match="not a source"):
        StreamEnvironment().from_source(argument)


def test_collection_must_be_iterable():
    with pytest.raises(GraphError, match="cannot be iterated"):
        StreamEnvironment().from_collection(41)


def test_collection_keeps_its_order_unless_told_otherwise():
    env = StreamEnvironment(parallelism=3)
    env.from_collection([1, 2])
    env.from_collection([1, 2], parallelism=2)

    assert [node.parallelism for node in env._graph] == [1, 2]


def test_interrupt_cancels_the_job_and_goes_on():
    runner = FakeRunner(interrupts=1)

    with pytest.raises(KeyboardInterrupt):
        job(StreamEnvironment(runner=runner)).execute("a")

    assert [type(request).__name__ for request in runner.handles[0].requests] == ["CancelRequest"]


# ---- checks


def test_source_that_cannot_rewind_is_refused_with_checkpoints(runner):
    env = StreamEnvironment(runner=runner, execution_checkpointing_interval="1s")

    with pytest.raises(ConfigError, match="cannot be read again") as raised:
        job(env, rewindable=False).execute("a")

    assert raised.value.context["operator"] == "FakeSource"


def test_source_that_cannot_rewind_runs_without_checkpoints(runner):
    assert job(StreamEnvironment(runner=runner), rewindable=False).execute("a").status is JobStatus.FINISHED


@pytest.mark.parametrize("method", ["execute", "submit", "explain"])
def test_job_without_a_sink_is_refused_and_every_loose_operator_named(runner, method):
    env = StreamEnvironment(runner=runner)
    lines = env.from_source(FakeSource())
    lines.map(len, name="lengths", uid="lengths")
    lines.filter(bool, name="not empty")

    with pytest.raises(GraphError, match="stream has no sink") as raised:
        getattr(env, method)()

    assert raised.value.context == {"operator": "lengths (uid lengths), not empty"}
    assert ".sink_to(...) or .print()" in raised.value.hint
    assert runner.submissions == []


def test_operator_without_a_sink_beside_one_that_has_is_warned_about(runner, caplog):
    env = job(StreamEnvironment(runner=runner))
    env.from_source(FakeSource(), name="forgotten", uid="forgotten")

    env.execute("a")

    assert [(record.message, record.operator) for record in caplog.records] == [
        ("stream has no sink, its records go nowhere", "forgotten (uid forgotten)")
    ]


def test_operator_of_which_only_a_side_output_is_read_has_a_sink(runner, caplog):
    env = StreamEnvironment(runner=runner)
    split = env.from_source(FakeSource(), uid="source").process(lambda value, ctx: None)
    split.get_side_output("late").sink_to(FakeSink(), uid="sink")

    env.execute("a")

    assert caplog.messages == []


@row("keyed.generated-uid")
def test_generated_uid_of_keyed_state_is_warned_about(runner, caplog):
    env = StreamEnvironment(runner=runner)
    env.from_source(FakeSource()).key_by(len).sum().sink_to(FakeSink())

    with caplog.at_level(logging.WARNING, logger="raystream"):
        env.execute("a")

    (record,) = caplog.records
    assert record.operators == ["sum"]


def test_generated_uid_of_a_sink_without_state_does_not_matter(runner, caplog):
    env = StreamEnvironment(runner=runner, execution_checkpointing_interval="1s")
    numbers = env.from_source(FakeSource(), uid="in")
    for sink in (DiscardSink(), FileSink.lines("out"), FakeSink()):
        numbers.sink_to(sink, name=type(sink).__name__)
    numbers.print()
    env.submit()

    assert [record.operators for record in caplog.records] == [["FileSink", "FakeSink"]]


def test_generated_uid_of_sources_matters_with_checkpoints_only(runner, caplog):
    for interval in (None, "1s"):
        env = StreamEnvironment(runner=runner, execution_checkpointing_interval=interval)
        env.from_source(FakeSource()).map(len).sink_to(FakeSink(), uid="sink")
        env.execute("a")

    (record,) = caplog.records
    assert record.operators == ["FakeSource"]


# ---- explain


def test_explain_shows_chains_uids_and_exchanges():
    env = StreamEnvironment(parallelism=2)
    lines = env.from_source(FakeSource(), name="lines", uid="source", parallelism=1)
    lines.key_by(len).sum(name="total").sink_to(FakeSink(), name="out", uid="sink", max_parallelism=None)

    generated = env.explain().partition("total  uid ")[2][:32]

    assert env.explain() == (
        "2 chains of operators in 2 slots\n"
        "\n"
        "[0] lines\n"
        "    parallelism 1, max parallelism 128 (derived), slots 0\n"
        "    lines  uid source (state)\n"
        "    -> [1] by key, from lines\n"
        "\n"
        "[1] total -> out\n"
        "    parallelism 2, max parallelism 128 (derived), slots 0 to 1, keyed\n"
        f"    total  uid {generated} (generated, state)\n"
        "    out    uid sink (state)"
    )


def test_explain_leaves_the_job_open(runner):
    env = job(StreamEnvironment(runner=runner))
    env.explain()

    assert env.execute("a").status is JobStatus.FINISHED
