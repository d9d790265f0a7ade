"""Jobs whose checkpoints refer to files of older ones: they crash, are cancelled, move and go on exactly."""

import shutil
import signal
from pathlib import Path

import pytest

from raystream import JobStatus, StreamEnvironment
from raystream.connectors.files import FileSink
from raystream.state import rocksdb
from raystream.storage.metadata import SnapshotMetadata, shared_files_of
from raystream.storage.snapshots import load_snapshot
from raystream.testing import Barrier, Crash, Pause, TestSource
from tests.checkpointing import ON_REQUEST
from tests.counting_jobs import Count, Rounds
from tests.e2e.test_lifecycle import COUNTING, EVERY_COUNT, LOCAL, interrupt
from tests.published import counts_by_key, one_to_n, records
from tests.running_job import until

KEYS = 500
NUMBERS = Rounds(keys=KEYS, rounds=6, lists=4)
FOR_EVER_MS = 1e9
PATIENCE = "60s"


@pytest.fixture
def submit(tmp_path):
    """Start the counting job on RocksDB."""

    def start(source: TestSource, *, checkpoints: str, parallelism=2, **options):
        env = StreamEnvironment(
            runner="local",
            parallelism=parallelism,
            state_backend_type="rocksdb",
            state_backend_rocksdb_localdir=str(tmp_path / "local"),
            execution_checkpointing_dir=str(tmp_path / checkpoints),
            restart_strategy_type="fixed-delay",
            restart_strategy_fixed_delay_delay="1ms",
            **{
                "execution_checkpointing_interval": "20ms",
                "execution_checkpointing_min_pause": "0ms",
                **options,
            },
        )
        counts = env.from_source(source, uid="numbers").key_by(lambda key: key).process(Count(), uid="count")
        counts.sink_to(FileSink.json_lines(str(tmp_path / "out")), uid="out")
        return env.submit("counting")

    return start


def completed(client) -> list:
    return [one for one in client.checkpoints() if one.status == "completed"]


def newest(client, *, more: int) -> Path:
    """Return the directory of the newest checkpoint, when so many more are complete."""
    wanted = max((one.checkpoint_id for one in completed(client)), default=0) + more
    until(client, lambda: any(one.checkpoint_id >= wanted for one in completed(client)))
    client.cancel()
    client.wait(PATIENCE)
    path = completed(client)[-1].path
    return Path(path.removeprefix("file://"))


def shared_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("*/shared/*"))


def metadata_of(checkpoint: Path) -> SnapshotMetadata:
    return load_snapshot(str(checkpoint))[1]


def test_full_checkpoint_refers_to_no_older_file_and_the_next_one_to_its_files(submit, tmp_path, monkeypatch):
    monkeypatch.setattr(rocksdb, "COMPACTION_FILES", 1_000)
    source = Rounds(keys=KEYS, rounds=6, lists=2).source(*[None] * 5, Pause(FOR_EVER_MS))
    client = submit(source, checkpoints="checkpoints", execution_checkpointing_num_retained=4, **ON_REQUEST)
    created = []
    for number, full in enumerate((False, False, False, True, False)):
        path = client.checkpoint(full).removeprefix("file://")
        created.append({file.created_by for file in shared_files_of(metadata_of(Path(path)))})
        until(client, lambda wanted=KEYS * number: client.progress().records_in >= wanted)
    full = client.checkpoints()[3]
    client.cancel()

    assert created == [set(), set(), {3}, {4}, {4, 5}]
    assert full.uploaded_bytes == full.size_bytes


def test_job_that_crashes_goes_on_and_leaves_nothing_when_it_has_finished(submit, tmp_path, monkeypatch):
    # A compaction may come with any flush, and writes everything anew.
    monkeypatch.setattr(rocksdb, "COMPACTION_FILES", 1_000)
    source = NUMBERS.source(None, None, None, None, Crash())
    client = submit(source, checkpoints="checkpoints")
    result = client.wait(PATIENCE)

    assert result.status is JobStatus.FINISHED
    assert result.restarts >= 1
    assert counts_by_key(tmp_path / "out") == NUMBERS.exact
    referring = [one for one in client.checkpoints() if one.uploaded_bytes < one.size_bytes]
    assert {one.attempt for one in referring} >= {1, result.restarts + 1}, "before the crash, and behind it"
    assert shared_in(tmp_path / "checkpoints") == []
    assert list((tmp_path / "local").glob("raystream-state-*")) == []


@pytest.mark.parametrize("parallelism", [1, 2, 3])
def test_cancelled_job_goes_on_from_its_moved_checkpoint_and_soon_needs_it_no_longer(
    submit, tmp_path, parallelism
):
    # Two waits in the script, of which each run passes one more.
    def source(*waits_ms):
        waits = [None if ms is None else Pause(ms) for ms in waits_ms]
        return NUMBERS.source(None, None, waits[0], None, waits[1])

    first = submit(source(FOR_EVER_MS, FOR_EVER_MS), checkpoints="first")
    checkpoint = newest(first, more=4)
    assert len(shared_files_of(metadata_of(checkpoint))) > 0
    (tmp_path / "first").rename(tmp_path / "moved")
    moved = tmp_path / "moved" / checkpoint.relative_to(tmp_path / "first")

    second = submit(
        source(0, FOR_EVER_MS),
        checkpoints="second",
        parallelism=parallelism,
        execution_state_recovery_path=str(moved),
    )
    before = metadata_of(moved).checkpoint_id
    checkpoint = newest(second, more=before + 4)
    (whole, *_) = (one for one in second.checkpoints() if one.status in ("completed", "deleted"))
    assert whole.uploaded_bytes == whole.size_bytes, "the first checkpoint refers to nothing"
    files = shared_files_of(metadata_of(checkpoint))
    assert {file.name for file in files} == set(shared_in(tmp_path / "second"))
    assert all(file.created_by > before for file in files)
    shutil.rmtree(tmp_path / "moved")

    third = submit(source(0, 0), checkpoints="third", execution_state_recovery_path=str(checkpoint))
    assert third.wait(PATIENCE).status is JobStatus.FINISHED
    assert counts_by_key(tmp_path / "out") == NUMBERS.exact
    assert shared_in(tmp_path / "third") == []
    assert {file.name for file in files} == set(shared_in(tmp_path / "second")), "still another job's"


def test_small_change_writes_a_small_part_of_the_state(submit, tmp_path, monkeypatch):
    # A compaction may come with any flush, and writes everything anew.
    monkeypatch.setattr(rocksdb, "COMPACTION_FILES", 1_000)
    changed = range(KEYS // 100)
    source = TestSource([*range(KEYS), Barrier(), *changed, Barrier(), Barrier()])
    client = submit(source, checkpoints="checkpoints", parallelism=1)
    client.wait(PATIENCE)

    # There may be one before the first record, and others between those of the script.
    whole, *later = (one for one in completed(client) if one.size_bytes > KEYS * 1024)
    assert whole.uploaded_bytes == whole.size_bytes
    assert all(one.uploaded_bytes < one.size_bytes / 10 for one in later)
    written = sorted(one.uploaded_bytes for one in later)
    assert written[0] + len(changed) * 1024 < written[-1], "one without a change, and one with"
    assert counts_by_key(tmp_path / "out") == one_to_n([*range(KEYS), *changed])


def test_flipped_byte_in_a_shared_file_ends_the_restore_with_its_name_and_nothing_is_processed(
    raystream, start, script, tmp_path
):
    path = script(COUNTING)
    options = [
        *("-D", f"execution.checkpointing.dir={tmp_path / 'checkpoints'}"),
        *("-D", "execution.checkpointing.interval=100ms"),
        *("-D", "state.backend.type=rocksdb"),
        *("-D", f"state.backend.rocksdb.localdir={tmp_path / 'local'}"),
    ]
    interrupt(start(*LOCAL, *options, path), signal.SIGTERM)
    path.with_name("go").touch()
    (checkpoint,) = tmp_path.glob("checkpoints/*/chk-*")
    damaged = next(tmp_path.glob("checkpoints/*/shared/*"))
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    before = sorted(records(tmp_path / "out"))

    outcome = raystream(*LOCAL, "-s", checkpoint, *options, path)
    assert outcome.code == 2
    assert "file of the snapshot is damaged" in outcome.cause
    assert damaged.name in outcome.cause
    assert sorted(records(tmp_path / "out")) == before

    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    assert raystream(*LOCAL, "-s", checkpoint, *options, path).code == 0
    assert sorted(records(tmp_path / "out")) == EVERY_COUNT


def test_checkpoints_are_whole_when_incremental_ones_are_switched_off(submit, tmp_path):
    source = TestSource([*range(10), Barrier(), *range(10), Barrier()])
    client = submit(source, checkpoints="checkpoints", execution_checkpointing_incremental=False)
    client.wait(PATIENCE)

    assert {one.uploaded_bytes - one.size_bytes for one in completed(client)} == {0}
    assert not list(tmp_path.glob("checkpoints/*/shared"))
