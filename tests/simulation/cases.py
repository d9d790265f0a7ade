"""What each seed of a campaign is: a topology, a mode, a backend, a parallelism and a set of faults."""

import atexit
import functools
import random
import shutil
import tempfile
from dataclasses import replace

from raystream.storage.layout import METADATA_NAME
from raystream.testing import NO_FAULTS, Delivery, Faults
from raystream.testing.faults import (
    CancelAndResume,
    CheckpointDamage,
    CheckpointPhase,
    SlotCrash,
    StopAndResume,
)
from raystream.testing.simulation_campaign import Case
from raystream.testing.simulation_job import Simulation
from tests.memory import MEMORY
from tests.simulation.topologies import TOPOLOGIES

MODES: dict[str, dict[str, object]] = {
    "aligned": {},
    "aligned, overlapping": {
        "execution_checkpointing_interval": "6ms",
        "execution_checkpointing_timeout": "150ms",
        "execution_checkpointing_max_concurrent_checkpoints": 4,
        "execution_checkpointing_num_retained": 3,
    },
    "at-least-once": {"execution_checkpointing_mode": "at-least-once"},
    "unaligned": {"execution_checkpointing_unaligned_enabled": True},
    "unaligned after a timeout": {
        "execution_checkpointing_unaligned_enabled": True,
        "execution_checkpointing_aligned_checkpoint_timeout": "15ms",
    },
}

FAULT_SETS = {
    "everything": Faults(),
    "slots": replace(
        NO_FAULTS,
        crashes=3,
        restart_crashes=3,
        kills=2,
        pauses=2,
        presumed_dead=2,
        slow_slots=2,
        clock_jumps=2,
    ),
    "storage": replace(NO_FAULTS, crashes=1, storage_failures=5, work_delays=4),
    "connections": replace(
        NO_FAULTS,
        crashes=1,
        slow_slots=1,
        frame_delays=4,
        frame_damages=2,
        connection_breaks=3,
        slow_connections=2,
    ),
    "job master": replace(
        NO_FAULTS,
        crashes=1,
        master_crashes=3,
        master_kills=2,
        master_pauses=1,
        masters_presumed_dead=2,
        crashes_at_calls=2,
        storage_failures=1,
        savepoints=1,
        stops=1,
        rescales=1,
    ),
    "clients": replace(
        NO_FAULTS, crashes=2, kills=1, work_delays=2, savepoints=2, stops=2, cancels=1, rescales=2
    ),
}

ROCKSDB_SHARE = 0.04
DAMAGED_SHARE = 0.05

_SUCCESSIONS = (CancelAndResume, StopAndResume)


def case_of(seed: int) -> Case:
    """Return what a seed is."""
    rng = random.Random(f"case/{seed}")
    topology, mode = rng.choice(list(TOPOLOGIES)), rng.choice(list(MODES))
    fault_set = rng.choice(list(FAULT_SETS))
    backend = "rocksdb" if rng.random() < ROCKSDB_SHARE else "hashmap"
    damaged = rng.random() < DAMAGED_SHARE
    simulation = _simulation(topology, mode, backend, rng.randint(1, 3), damaged)
    faults = simulation.drawn(seed, FAULT_SETS[fault_set])
    if damaged:
        where = rng.choice((METADATA_NAME, ""))
        damage = CheckpointDamage(checkpoint_id=rng.randint(2, 4), where=where, lost=rng.random() < 0.5)
        crash = SlotCrash(checkpoint_id=damage.checkpoint_id, phase=CheckpointPhase.LOGGED)
        # A job that another one goes on from has no older checkpoint of its own at first.
        faults = (damage, crash, *(fault for fault in faults if not isinstance(fault, _SUCCESSIONS)))
    return Case(name=f"{topology}, {mode}", simulation=simulation, faults=faults)


@functools.cache
def _simulation(topology: str, mode: str, backend: str, parallelism: int, damaged: bool) -> Simulation:
    chosen = TOPOLOGIES[topology]
    options = {"pipeline_auto_watermark_interval": "5ms", **MODES[mode]}
    repeats = mode == "at-least-once"
    expected = chosen.at_least or chosen.expected if repeats else chosen.expected
    delivery = None
    if damaged:  # What was published since the older checkpoint is published again.
        delivery = None if repeats else Delivery.REPEATED
        options["execution_checkpointing_num_retained"] = 3
        options["execution_state_recovery_allow_older_checkpoint"] = True
    if backend == "rocksdb":
        options["state_backend_type"] = backend
        options["state_backend_rocksdb_localdir"] = _local_directory()
        options["state_backend_rocksdb_memory_managed_size"] = "8mb"
    return Simulation(chosen.job, expected=expected(), delivery=delivery, parallelism=parallelism, **options)


@functools.cache
def _local_directory() -> str:
    """Return a directory for this process, in memory where there is such a file system."""
    path = tempfile.mkdtemp(prefix="raystream-", dir=MEMORY)
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path
