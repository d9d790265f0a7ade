"""A client passes requests on, waits, and turns a failure into an exception that explains it."""

from datetime import timedelta

import pytest

from raystream import JobClient, JobFailedError, JobStatus, StreamEnvironment, UserCodeError
from raystream.api import ambient
from raystream.api.ambient import Ambient
from raystream.api.bindings import bind, bound
from raystream.api.runner import CancelRequest, SavepointRequest, StopRequest
from raystream.connectors.basic import CollectSink
from raystream.errors import ConfigError
from raystream.operators.sink import WriterContext
from raystream.records.batch import RowBatch
from tests.unit.api.fakes import FakeRunner, FakeSink, FakeSource


def submitted(runner):
    env = StreamEnvironment(runner=runner)
    env.from_source(FakeSource(), uid="source").sink_to(FakeSink(), uid="sink")
    return env.submit("job")


def payloads(*parts):
    """Return what a collect sink sends for these lists of records."""
    sent = []
    context = WriterContext(
        job_id="j", uid="u", subtask=0, parallelism=1, attempt=1, tell_client=print, deliver=sent.append
    )
    sink = CollectSink()
    writer, committer = sink.open_writer(context), sink.open_committer(context)
    for values in parts:
        writer.write(RowBatch(values))
        committer.commit(writer.prepare_commit(0))
    return [("collect", payload) for payload in sent]


def test_requests_reach_the_job_each_with_an_id_of_its_own():
    runner = FakeRunner()
    client = submitted(runner)

    assert client.savepoint("/sp") == "/savepoints/savepoint-abc"
    assert client.savepoint() == "/savepoints/savepoint-abc"
    assert client.stop("/sp") == "/savepoints/savepoint-abc"
    client.cancel()

    requests = runner.handles[0].requests
    assert [type(r) for r in requests] == [SavepointRequest, SavepointRequest, StopRequest, CancelRequest]
    assert [r.directory for r in requests[:3]] == ["file:///sp", None, "file:///sp"]
    assert len({r.request_id for r in requests}) == 4


def test_format_of_a_savepoint_is_canonical_unless_it_is_said():
    runner = FakeRunner()
    client = submitted(runner)
    client.savepoint()
    client.savepoint("/sp", "native")
    client.stop(format="native", drain=True)

    assert [request.format.value for request in runner.handles[0].requests] == [
        "canonical",
        "native",
        "native",
    ]
    assert runner.handles[0].requests[-1].drain


def test_format_that_does_not_exist_is_told_before_anything_is_asked_for():
    runner = FakeRunner()

    with pytest.raises(ConfigError, match="format does not exist"):
        submitted(runner).savepoint(format="quick")
    assert runner.handles[0].requests == []


def test_status_and_checkpoints_are_those_of_the_job():
    client = submitted(FakeRunner(prepare={"status": JobStatus.RUNNING, "checkpoints": ("chk-1",)}))

    assert client.status() is JobStatus.RUNNING
    assert client.checkpoints() == ("chk-1",)


def test_progress_tells_the_counts_so_far():
    view = {"status": JobStatus.RUNNING, "records_in": 7, "records_out": 5, "restarts": 1, "dead_letters": 2}
    progress = submitted(FakeRunner(prepare=view)).progress()

    assert (progress.status, progress.records_in, progress.records_out) == (JobStatus.RUNNING, 7, 5)
    assert (progress.restarts, progress.dead_letters) == (1, 2)


@pytest.mark.parametrize(
    ("timeout", "seconds"), [(None, None), (2.5, 2.5), ("30s", 30.0), (timedelta(minutes=1), 60.0)]
)
def test_timeout_is_seconds_a_timedelta_or_text(timeout, seconds):
    runner = FakeRunner()
    submitted(runner).wait(timeout)

    assert runner.handles[0].waits[0][0] == seconds


def test_attach_finds_the_job_by_its_id():
    runner = FakeRunner()
    client = submitted(runner)
    bind("fake", f"{__name__}:the_runner")
    globals()["the_runner"] = lambda: runner

    assert JobClient.attach(client.job_id, runner="fake").job_id == client.job_id


def test_printed_lines_appear_on_the_standard_output(capsys):
    submitted(FakeRunner(messages=[("print", ["0> a", "0> b"]), ("print", ["1> c"])])).wait()

    assert capsys.readouterr().out == "0> a\n0> b\n1> c\n"


def test_collected_records_come_back_as_a_list():
    runner = FakeRunner(messages=payloads([1, 2], [3]))

    assert StreamEnvironment(runner=runner).from_source(FakeSource()).execute_and_collect() == [1, 2, 3]


def test_records_that_come_twice_are_taken_once():
    once = payloads([1, 2], [3])
    runner = FakeRunner(messages=[*once, once[0]])

    assert StreamEnvironment(runner=runner).from_source(FakeSource()).execute_and_collect() == [1, 2, 3]


def test_limit_cancels_the_job_and_cuts_the_list():
    runner = FakeRunner(messages=payloads([1, 2], [3, 4], [5]))
    stream = StreamEnvironment(runner=runner).from_source(FakeSource())

    assert stream.execute_and_collect(limit=3) == [1, 2, 3]
    assert [type(request) for request in runner.handles[0].requests] == [CancelRequest]


def test_endless_stream_is_collected_with_checkpoints_but_not_with_their_restarts():
    runner = FakeRunner(messages=payloads([1]))
    StreamEnvironment(runner=runner).from_source(FakeSource(bounded=False)).execute_and_collect(limit=1)

    config = runner.submissions[0].config
    assert config.checkpointing.interval_ms == 200
    assert config.restart.type == "none"


def test_failure_of_user_code_names_operator_record_and_line():
    error = UserCodeError(
        "user function raised",
        operator="parse",
        subtask=1,
        record="'x'",
        traceback="Traceback ...\nValueError: x",
    )
    client = submitted(FakeRunner(prepare={"status": JobStatus.FAILED, "error": error}))

    with pytest.raises(JobFailedError, match="user function raised") as raised:
        client.wait()

    assert raised.value.__cause__ is error
    assert raised.value.context["operator"] == "parse"
    assert "ValueError: x" in str(raised.value).replace("\\n", "\n")


def test_failure_without_a_known_cause_is_still_told():
    client = submitted(FakeRunner(prepare={"status": JobStatus.FAILED, "error": None}))

    with pytest.raises(JobFailedError, match="job failed"):
        client.wait()


def test_canceled_job_is_no_error():
    assert submitted(FakeRunner(prepare={"status": JobStatus.CANCELED})).wait().status is JobStatus.CANCELED


def test_name_that_nothing_is_bound_to_is_an_error_that_lists_the_others():
    with pytest.raises(ConfigError) as raised:
        bound("flink")

    assert "local" in raised.value.hint


def test_attach_uses_the_address_of_the_command_line():
    seen = {}

    class Runner(FakeRunner):
        def attach(self, job_id, *, address=None):
            seen["address"] = address
            return "handle"

    bind("fake", f"{__name__}:the_runner")
    globals()["the_runner"] = Runner
    with ambient.use(Ambient(address="head:6379")):
        JobClient.attach("0" * 32, runner="fake")

    assert seen == {"address": "head:6379"}
