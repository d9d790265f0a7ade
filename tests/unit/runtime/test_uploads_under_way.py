"""A slot knows for which checkpoints something of it is still being written, whatever became of them."""

import pytest

from raystream.runtime.upload import UploadDroppedError, UploadsUnderWay
from tests.unit.runtime.test_snapshotter import World, filled


def test_oldest_is_that_of_all_that_have_begun_and_not_ended():
    under_way = UploadsUnderWay()
    assert under_way.oldest is None
    for checkpoint_id in (3, 2, 2):
        under_way.begun(checkpoint_id)
    under_way.ended(2)
    assert under_way.oldest == 2

    under_way.ended(2)
    assert under_way.oldest == 3


def test_acknowledgement_says_for_which_checkpoints_the_slot_is_still_writing():
    world = World(filled(count=10))
    for checkpoint_id in (1, 2, 3):
        world.take(checkpoint_id)
        while world.snapshotter.advance():
            pass
    world.snapshotter.abort(1)
    first = world.background.waiting.popleft()
    world.take(4)
    world.snapshotter.abort(4)
    world.background.run_all()
    assert world.under_way.oldest == 1
    with pytest.raises(UploadDroppedError):
        first[0]()
    world.take(5)
    world.finish()

    assert {checkpoint_id: snapshot.writing_from for checkpoint_id, snapshot in world.acks} == {
        2: 1,
        3: 1,
        5: None,
    }
