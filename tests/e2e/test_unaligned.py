"""A job behind a slow sink takes unaligned checkpoints, and goes on from one at another parallelism."""

import pytest

import raystream.savepoint
from raystream import JobStatus, StreamEnvironment
from raystream.connectors.files import FileSink
from raystream.errors import ConfigError
from raystream.storage.snapshots import load_snapshot
from raystream.testing import Pause, TestSource
from tests.published import counts_by_key
from tests.running_job import until

KEYS, EACH = 100, 100
NUMBERS = range(KEYS * EACH)
LETTER_BYTES = 2_000
SLOW = 10_000  # Additions for each letter: `read` holds the sources back for most of the run.
CHECKPOINTS_MAX = 100  # All are retained and shown, so that the client sees every one, however late it looks.


def counting(tmp_path, out, *, parallelism, work, held=False, **options):
    """Return the environment of a job that counts letters by key, and has some work with each.

    A job that is held does not end: its sources are silent for an hour when they have sent everything.
    """

    def read(letter):
        sum(range(work))
        return letter[0]

    env = StreamEnvironment(
        runner="local",
        parallelism=parallelism,
        execution_checkpointing_dir=str(tmp_path / "checkpoints"),
        execution_checkpointing_interval="50ms",
        execution_checkpointing_unaligned_enabled=True,
        execution_checkpointing_num_retained=CHECKPOINTS_MAX,
        **options,
    )
    end = [Pause(3_600_000)] if held else []
    source = TestSource(*([*NUMBERS[start::2], *end] for start in range(2)))
    letters = env.from_source(source, uid="numbers").map(lambda n: (n, "x" * LETTER_BYTES)).rebalance()
    read_letters = letters.map(read, uid="read")
    pairs = read_letters.key_by(lambda n: n % KEYS).map(lambda n: (n % KEYS, 1))
    counts = pairs.key_by(lambda pair: pair[0]).sum(1, uid="count")
    counts.sink_to(FileSink.json_lines(str(tmp_path / out)), uid="published")
    return env


def checkpoint_in_flight(tmp_path):
    """Run a job until it has a checkpoint with records in flight, cancel it, and return the path."""
    client = counting(tmp_path, "slow", parallelism=2, work=SLOW, held=True).submit("slow")

    def in_flight():
        taken = client.checkpoints()
        assert len(taken) < CHECKPOINTS_MAX, "no checkpoint had records in flight"
        return [one.path for one in taken if one.status == "completed" and one.path and _bytes_in_flight(one)]

    path, *_ = until(client, in_flight)
    client.cancel()
    assert client.wait("60s").status is JobStatus.CANCELED
    return path


def _bytes_in_flight(taken):
    return sum(subtask.in_flight_bytes for subtask in taken.subtasks)


@pytest.mark.parametrize("parallelism", [1, 2, 3])
def test_checkpoint_with_records_in_flight_restores_at_any_parallelism(tmp_path, parallelism):
    path = checkpoint_in_flight(tmp_path)
    _, metadata = load_snapshot(path)
    assert any(handle.records for subtask in metadata.subtasks for handle in subtask.channels)

    env = counting(tmp_path, "quick", parallelism=parallelism, work=0, execution_state_recovery_path=path)
    assert env.execute("quick").status is JobStatus.FINISHED

    before, after = counts_by_key(tmp_path / "slow"), counts_by_key(tmp_path / "quick")
    for key in range(KEYS):
        first, then = before.get(key, []), after.get(key, [])
        assert first == list(range(1, len(first) + 1))
        assert then == list(range(EACH + 1 - len(then), EACH + 1))
        assert {*first, *then} == set(range(1, EACH + 1))


def test_savepoint_is_not_written_on_a_base_with_records_in_flight(tmp_path):
    checkpoint = checkpoint_in_flight(tmp_path)

    with (
        raystream.savepoint.open(checkpoint) as base,
        pytest.raises(ConfigError, match="records in flight"),
    ):
        raystream.savepoint.write(str(tmp_path / "new"), [], base=base)
