"""A checkpoint of which a file is lost or damaged is passed over, and the state is right all the same."""

import gc

import pytest

from raystream import KeyedProcessFunction, ListStateDescriptor, ValueStateDescriptor
from raystream.connectors.basic import DiscardSink
from raystream.storage.layout import METADATA_NAME
from raystream.testing import simulate
from raystream.testing.faults import CheckpointDamage, CheckpointPhase, SlotCrash
from tests.simulation import jobs

pytestmark = pytest.mark.simulation

EXPECTED = {key: sorted(value for value in jobs.NUMBERS if jobs.key_of(value) == key) for key in jobs.TOTALS}
FINAL = {}
"""What the last subtasks to see all records of a key held of it."""


class Gather(KeyedProcessFunction):
    """Keeps all records of its key; one too many or a wrong one fails the job for good."""

    def open(self, ctx):
        self.hits = ctx.get_state(ValueStateDescriptor("hits", int, default=0))
        self.values = ctx.get_list_state(ListStateDescriptor("values", int))

    def process_element(self, value, ctx):
        self.hits.update(self.hits.value() + 1)
        self.values.add(value)
        yield ctx.current_key
        if self.hits.value() >= jobs.TOTALS[ctx.current_key]:
            FINAL[ctx.current_key] = sorted(self.values.get())


def gathered(env):
    """A job without a sink that commits, and with the state that is looked at afterwards."""
    keyed = jobs.numbers(env).key_by(jobs.key_of).process(Gather(), name="gather", uid="gather")
    keyed.sink_to(DiscardSink(), uid="nothing")


def committed(env):
    return jobs.numbers(env).key_by(jobs.key_of).process(Gather(), name="gather", uid="gather")


def after(checkpoint_id, where, lost, *, slot=None):
    """A file of a checkpoint is damaged when it is complete, and then a slot dies."""
    damage = CheckpointDamage(checkpoint_id=checkpoint_id, where=where, lost=lost)
    return damage, SlotCrash(checkpoint_id=checkpoint_id, phase=CheckpointPhase.LOGGED, slot=slot)


DAMAGES = [
    (checkpoint_id, where, lost)
    for where in (METADATA_NAME, "gather-keyed", "")
    for checkpoint_id, lost in ((2, False), (3, True))
]


@pytest.fixture(params=["hashmap", "rocksdb"])
def options(request, local_path):
    """Options of a backend, one of which has files that several checkpoints need."""
    yield {
        "state_backend_type": request.param,
        "state_backend_rocksdb_localdir": str(local_path),
        "state_backend_rocksdb_memory_managed_size": "8mb",
        "execution_checkpointing_num_retained": 2,
        "execution_checkpointing_data_inline_threshold": "0b",
    }
    gc.collect()  # Nobody closes what a slot had that crashed, and the process lives on.
    assert list(local_path.iterdir()) == []


@pytest.mark.parametrize(("checkpoint_id", "where", "lost"), DAMAGES)
def test_job_goes_on_from_the_older_checkpoint_and_its_state_is_right(checkpoint_id, where, lost, options):
    FINAL.clear()
    faults = after(checkpoint_id, where, lost)
    report = simulate(gathered, seeds=range(2), faults=faults, expected=(), **options)

    report.check()
    assert EXPECTED == FINAL
    assert all(set(row.faults) == set(faults) for row in report.rows)
    assert all(row.attempts >= 3 for row in report.rows), "one attempt found the damage"


def test_two_damaged_checkpoints_are_passed_over_one_after_the_other(options):
    FINAL.clear()
    options["execution_checkpointing_num_retained"] = 3
    faults = (CheckpointDamage(checkpoint_id=2, lost=True), *after(3, "", lost=False))
    report = simulate(gathered, seeds=range(2), faults=faults, expected=(), **options)

    report.check()
    assert EXPECTED == FINAL
    assert all(row.attempts >= 4 for row in report.rows)


def test_job_that_commits_ends_with_the_file_and_publishes_nothing_twice(options):
    report = simulate(committed, seeds=range(2), faults=after(2, "gather-keyed", lost=True), **options)

    for row in report.rows:
        (ended, *_) = row.problems
        assert "job is FAILED: file of the snapshot is missing" in ended
        assert "gather-keyed" in ended
        assert "--allow-older-checkpoint" in ended
        assert not any("too much in the output" in problem for problem in row.problems)


def test_job_that_may_fall_back_publishes_only_what_came_since_twice(options):
    options["execution_state_recovery_allow_older_checkpoint"] = True
    faults = after(3, "gather-keyed", lost=True)
    report = simulate(committed, seeds=range(2), faults=faults, **options)

    for row in report.rows:
        assert all("too much in the output" in problem for problem in row.problems), row.problems
