"""A thousand checkpoints in a row leave no more in the store than a hundred."""

import os
from collections import Counter
from pathlib import Path

import pytest

from raystream import StreamEnvironment
from raystream.connectors.basic import DiscardSink
from raystream.connectors.datagen import DatagenSource
from raystream.state.rocksdb import COMPACTION_FILES
from raystream.storage.metadata import shared_files_of
from raystream.storage.snapshots import load_snapshot
from tests.checkpointing import ON_REQUEST
from tests.counting_jobs import Count

CHECKPOINTS, EVERY = 1_000, 100
KEYS = 50
LOOKS_MAX = 3_000


@pytest.mark.parametrize("backend", ["hashmap", "rocksdb"])
def test_listing_of_a_job_does_not_grow_with_its_checkpoints(local_path, backend):
    env = StreamEnvironment(
        runner="local",
        parallelism=1,
        state_backend_type=backend,
        state_backend_rocksdb_localdir=str(local_path / "local"),
        execution_checkpointing_dir=str(local_path / "checkpoints"),
        execution_checkpointing_data_inline_threshold=0,
        **ON_REQUEST,
    )
    keys = env.from_source(DatagenSource(lambda index: index % KEYS, rate=2_000), uid="numbers")
    keys.key_by(lambda key: key).process(Count(), uid="count").sink_to(DiscardSink(), uid="out")
    client = env.submit("many checkpoints")
    directory = local_path / "checkpoints" / client.job_id

    listings = []
    for number in range(1, CHECKPOINTS + 1):
        path = Path(client.checkpoint().removeprefix("file://"))
        if number % EVERY == 0:
            listing = settled(client, directory, path)
            assert listing.pop("shared", 0) <= 2 * COMPACTION_FILES
            listings.append(listing)
    client.cancel()

    parts = {"graph": 1, "probe": 1, "log": 2, "chk": 3}
    assert listings == [parts] * (CHECKPOINTS // EVERY), "the log has the attempt and the newest checkpoint"


def settled(client, directory: Path, checkpoint: Path) -> Counter[str]:
    """Return how many files of each kind there are, when what a checkpoint has replaced is deleted."""
    own = {directory / "shared" / file.name for file in shared_files_of(load_snapshot(str(checkpoint))[1])}
    for _ in range(LOOKS_MAX):
        files = [Path(parent) / name for parent, _, names in os.walk(directory) for name in names]
        kinds = Counter(path.relative_to(directory).parts[0].partition("-")[0] for path in files)
        older = [path for path in files if path.match("chk-*/*") and path.parent != checkpoint]
        if not older and kinds["log"] <= 2 and own == {path for path in files if path.match("shared/*")}:
            return kinds
        with pytest.raises(TimeoutError):
            client.wait("20ms")
    raise AssertionError(f"superfluous files stay: {files}")
