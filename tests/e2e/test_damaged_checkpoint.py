"""A job whose newest checkpoint is damaged goes on from the one before, or says what to do."""

import logging
from contextlib import suppress
from pathlib import Path

import pytest

from raystream import JobFailedError, JobStatus, KeyedProcessFunction, StreamEnvironment, ValueStateDescriptor
from raystream.connectors.files import FileSink
from raystream.errors import RaystreamError, UserCodeError
from raystream.testing import Barrier, TestSource
from tests.checkpointing import ON_REQUEST
from tests.e2e.damaged_snapshots import LinesSink
from tests.published import counts_by_key, one_to_n
from tests.running_job import until

KEYS = list(range(40))
PATIENCE = "60s"
DAMAGED = 2
"""The checkpoint of which a file is damaged when it is complete."""


class Saboteur(TestSource):
    """Damages a file of a checkpoint when it is complete, and crashes."""

    def __init__(self, pattern, *scripts):
        super().__init__(*scripts)
        self.pattern = pattern

    def open_reader(self, context):
        reader = super().open_reader(context)
        if context.attempt == 1 and context.subtask == 0:
            reader.checkpoint_complete = self._completed
        return reader

    def _completed(self, checkpoint_id):
        if checkpoint_id != DAMAGED:
            return
        directory, pattern = self.pattern
        newest = max(Path(directory).glob(pattern), key=lambda path: path.stat().st_size)
        content = newest.read_bytes()
        newest.write_bytes(content[: len(content) // 2])
        raise UserCodeError("crashed behind the damage", path=str(newest))


class Count(KeyedProcessFunction):
    def open(self, ctx):
        self.seen = ctx.get_state(ValueStateDescriptor("seen", int, default=0))

    def process_element(self, value, ctx):
        self.seen.update(self.seen.value() + 1)
        yield value, self.seen.value()


FILES = {
    "metadata": ("hashmap", f"*/chk-{DAMAGED}/_metadata"),
    "state": ("hashmap", f"*/chk-{DAMAGED}/*count*"),
    "index": ("rocksdb", f"*/chk-{DAMAGED}/*count*"),
    "shared": ("rocksdb", f"*/shared/c{DAMAGED}-*"),
}


@pytest.fixture
def submit(tmp_path):
    def start(name, sink, *, sabotage=True, **options):
        backend, pattern = FILES[name]
        checkpoints = tmp_path / "checkpoints"
        script = [*KEYS, Barrier(), *KEYS, Barrier(), *KEYS, Barrier(), *KEYS]
        env = StreamEnvironment(
            runner="local",
            parallelism=1,
            state_backend_type=backend,
            state_backend_rocksdb_localdir=str(tmp_path / "local"),
            execution_checkpointing_dir=str(checkpoints),
            execution_checkpointing_num_retained=2,
            execution_checkpointing_data_inline_threshold="0b",
            restart_strategy_type="fixed-delay",
            restart_strategy_fixed_delay_attempts=1,
            restart_strategy_fixed_delay_delay="1ms",
            **{
                "execution_checkpointing_interval": "50ms",
                "execution_checkpointing_min_pause": "50ms",
                **options,
            },
        )
        source = Saboteur((str(checkpoints), pattern), script) if sabotage else TestSource(script)
        counts = env.from_source(source, uid="numbers").key_by(lambda key: key).process(Count(), uid="count")
        counts.sink_to(sink, uid="out")
        return env.submit("counting")

    return start


def by_id(client):
    return {one.checkpoint_id: one for one in client.checkpoints()}


@pytest.mark.parametrize("name", FILES)
def test_job_goes_on_from_the_checkpoint_before_the_damaged_one(name, submit, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="raystream"):
        client = submit(name, LinesSink(tmp_path / "out"))
        result = client.wait(PATIENCE)

    assert result.status is JobStatus.FINISHED
    assert result.restarts == 2, "the crash, and the attempt that found the damage"
    counts = {key: set(seen) for key, seen in counts_by_key(tmp_path / "out").items()}
    assert counts == {key: {1, 2, 3, 4} for key in KEYS}
    shown = by_id(client)
    assert shown[DAMAGED].status == "damaged"
    assert max(shown) > DAMAGED
    (warning,) = (record for record in caplog.records if record.getMessage() == "checkpoint is damaged")
    assert (warning.checkpoint_id, warning.older_checkpoint) == (DAMAGED, 1)
    assert warning.path in shown[DAMAGED].failure
    assert Path(warning.path.removeprefix("file://")).match(FILES[name][1])
    assert not list(tmp_path.glob("checkpoints/*/chk-*"))
    assert not list(tmp_path.glob("checkpoints/*/shared/*"))


def test_job_that_commits_names_the_file_and_goes_on_when_it_is_told_to(submit, tmp_path):
    client = submit("state", FileSink.json_lines(str(tmp_path / "out")), **ON_REQUEST)
    until(client, lambda: client.progress().records_in >= len(KEYS))
    client.checkpoint()
    until(client, lambda: client.progress().records_in >= 2 * len(KEYS))
    with suppress(RaystreamError):  # It is damaged before its client may have heard of it.
        client.checkpoint()
    with pytest.raises(JobFailedError, match="file of the snapshot is shorter than it should be") as caught:
        client.wait(PATIENCE)

    assert Path(caught.value.context["path"].removeprefix("file://")).match(FILES["state"][1])
    assert "--allow-older-checkpoint" in caught.value.hint
    assert [by_id(client)[n].status for n in (1, DAMAGED)] == ["completed", "damaged"]
    assert counts_by_key(tmp_path / "out") == one_to_n(KEYS), "what the older one has committed"

    older = by_id(client)[1].path
    sink = FileSink.json_lines(str(tmp_path / "out"))
    client = submit("state", sink, sabotage=False, execution_state_recovery_path=older)
    assert client.wait(PATIENCE).status is JobStatus.FINISHED
    assert counts_by_key(tmp_path / "out") == one_to_n(KEYS * 4)
