"""What operators have written outside of a checkpoint is durable before the checkpoint can be complete."""

from types import SimpleNamespace

from raystream.errors import StorageError
from raystream.operators.operator import Operator
from tests.unit.runtime.test_snapshotter import World


class Syncing(Operator):
    """Has output outside of the checkpoint."""

    def __init__(self, *, error=None):
        self.context = SimpleNamespace(keyed_backend=None)
        self.error = error
        self.synced = 0

    def sync(self):
        self.synced += 1
        if self.error:
            raise self.error


def test_output_is_synced_in_a_thread_before_the_snapshot_is_acknowledged():
    operator = Syncing()
    world = World(operator)
    world.take(1)
    assert (operator.synced, world.acks) == (0, [])

    world.background.run_one()
    assert operator.synced == 1
    assert len(world.acks) == 1


def test_output_that_cannot_be_synced_declines_the_checkpoint():
    world = World(Syncing(error=StorageError("disk is full")))
    world.take(1)
    world.finish()

    assert world.acks == []
    assert [(failure[0], failure[3].message) for failure in world.failures] == [(1, "disk is full")]
