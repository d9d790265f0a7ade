"""A job behind a slow sink takes unaligned checkpoints, and goes on from one at another parallelism."""

from collections import Counter
from contextlib import suppress

import pytest

import raystream.savepoint
from raystream import JobStatus, StreamEnvironment
from raystream.connectors.files import FileSink
from raystream.errors import ConfigError
from raystream.storage.metadata import decode_metadata
from raystream.testing import TestSource
from tests.published import records

NUMBERS = range(3_000)
LETTER_BYTES = 2_000


def counting(tmp_path, *, parallelism, work, **options):
    """Return the environment of a job that counts letters, and has some work with each."""

    def read(letter):
        sum(range(work))
        return letter[0]

    env = StreamEnvironment(
        runner="local",
        parallelism=parallelism,
        execution_checkpointing_dir=str(tmp_path / "checkpoints"),
        execution_checkpointing_interval="50ms",
        execution_checkpointing_unaligned_enabled=True,
        **options,
    )
    source = TestSource(*(list(NUMBERS[start::2]) for start in range(2)))
    letters = env.from_source(source, uid="numbers").map(lambda n: (n, "x" * LETTER_BYTES)).rebalance()
    read_letters = letters.map(read, uid="read")
    pairs = read_letters.key_by(lambda n: n % 100).map(lambda n: (n % 100, 1))
    counts = pairs.key_by(lambda pair: pair[0]).sum(1, uid="count")
    counts.sink_to(FileSink.json_lines(str(tmp_path / "out")), uid="published")
    return env


def checkpoint_in_flight(client):
    """Wait for a checkpoint with records in flight."""
    while True:
        with suppress(TimeoutError):
            client.wait("20ms")
        for taken in client.checkpoints():
            if taken.status == "completed" and taken.path and sum(s.in_flight_bytes for s in taken.subtasks):
                return


@pytest.mark.parametrize("parallelism", [1, 2, 3])
def test_checkpoint_with_records_in_flight_restores_at_any_parallelism(tmp_path, parallelism):
    client = counting(tmp_path, parallelism=2, work=60_000).submit("slow")
    checkpoint_in_flight(client)
    client.cancel()
    assert client.wait("60s").status is JobStatus.CANCELED
    (path,) = (tmp_path / "checkpoints").glob("*/chk-*")
    metadata = decode_metadata((path / "_metadata").read_bytes(), path="there")
    assert any(handle.records for subtask in metadata.subtasks for handle in subtask.channels)

    env = counting(tmp_path, parallelism=parallelism, work=0, execution_state_recovery_path=str(path))
    assert env.execute("quick").status is JobStatus.FINISHED

    published = Counter(map(tuple, records(tmp_path / "out")))
    assert published == Counter((key, n + 1) for key in range(100) for n in range(len(NUMBERS) // 100))


def test_savepoint_is_not_written_on_a_base_with_records_in_flight(tmp_path):
    client = counting(tmp_path, parallelism=2, work=60_000).submit("slow")
    checkpoint_in_flight(client)
    client.cancel()
    client.wait("60s")
    (checkpoint,) = (tmp_path / "checkpoints").glob("*/chk-*")

    with (
        raystream.savepoint.open(str(checkpoint)) as base,
        pytest.raises(ConfigError, match="records in flight"),
    ):
        raystream.savepoint.write(str(tmp_path / "new"), [], base=base)
