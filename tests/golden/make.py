"""Makes the golden snapshots of the present formats: `python -m tests.golden.make`, beside `tests`.

Each is a whole snapshot of the job in `tests.every_state`, halfway through its numbers.  Those of earlier
formats stay as they are, for as long as these are read; nobody makes them again.
"""

import contextlib
import shutil
import sys
import tempfile
from pathlib import Path

from raystream import StreamEnvironment
from raystream.connectors.basic import DiscardSink
from raystream.storage.metadata import FORMAT_VERSION
from raystream.testing import Barrier, Pause, TestSource
from tests.every_state import DAY, RULES, add_everything

SNAPSHOTS = Path(__file__).parent / "snapshots"
BYTES_MAX = 64 * 1024
HALF = 11
COUNT = 2 * HALF
"""Numbers of the job; the first half is in the snapshots."""

STATES = ((True, None), (True, DAY), (False, None))
"""Kinds of keyed states in the snapshots; each state is a Parquet file of two kibibytes or more."""
KINDS = {
    "heap-checkpoint": ("hashmap", None),
    "rocksdb-checkpoint": ("rocksdb", None),
    "native-savepoint": ("rocksdb", "native"),
    "canonical-savepoint": ("hashmap", "canonical"),
}
"""Backend, and format of a savepoint."""


def environment(path, backend, *, parallelism=1, **options):
    """Return the environment of a job that keeps things below a path."""
    return StreamEnvironment(
        runner="local",
        parallelism=parallelism,
        state_backend_type=backend,
        state_backend_rocksdb_localdir=str(path / "local"),
        execution_checkpointing_dir=str(path / "checkpoints"),
        execution_checkpointing_savepoint_dir=str(path / "savepoints"),
        execution_checkpointing_interval="20ms",
        execution_checkpointing_min_pause="0ms",
        execution_checkpointing_data_inline_threshold="1kb",
        pipeline_auto_watermark_interval="5ms",
        **options,
    )


def add_half(env, *rest):
    """Add the job to an environment, whose numbers are the first half and then the rest."""
    source = TestSource([*range(HALF), Barrier(), *rest])
    return add_everything(env, source, TestSource(RULES), kinds=STATES)


def make(kind):
    """Make one snapshot anew; return where it is."""
    backend, form = KINDS[kind]
    target = SNAPSHOTS / f"{kind}-{FORMAT_VERSION}"
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        env = environment(path, backend)
        add_half(env, Pause(1e9)).sink_to(DiscardSink(), uid="out")
        client = env.submit("golden")
        wanted = None  # The second one from the barrier on has all numbers before it.
        while wanted is None or client.checkpoints()[-1].checkpoint_id < wanted:
            with contextlib.suppress(TimeoutError):
                client.wait("20ms")
            if wanted is None and client.progress().records_in >= HALF + len(RULES):
                wanted = client.checkpoints()[-1].checkpoint_id + 4 if client.checkpoints() else None
        if form is None:
            client.cancel()
            client.wait("60s")
            taken = path / "checkpoints"
        else:
            client.stop(format=form)
            client.wait("60s")
            taken = path / "savepoints"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for found in sorted(taken.glob("*/chk-*")) + sorted(taken.glob("*/shared")):
            shutil.copytree(found, target / found.relative_to(taken))
        for found in taken.glob("savepoint-*"):
            shutil.copytree(found, target / found.name)
    return target


def size_of(directory):
    """Return the size of all files in a directory."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


if __name__ == "__main__":
    for name in sys.argv[1:] or KINDS:
        made = make(name)
        assert size_of(made) < BYTES_MAX, f"{made} has {size_of(made)} bytes"
