"""A shared file lives exactly as long as a complete checkpoint needs it."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from raystream.errors import CheckpointError
from raystream.handles import SharedFile
from raystream.protocol.shared_files import SharedFiles


def file_of(checkpoint_id, local="1.sst", *, checksum="0" * 16):
    return SharedFile(
        name=f"c{checkpoint_id}-{local}",
        local=local,
        created_by=checkpoint_id,
        size_bytes=10,
        checksum=checksum,
    )


def complete(shared, checkpoint_id, *files):
    shared.verify(checkpoint_id, files)
    shared.checkpoint_completed(checkpoint_id)
    shared.validate()


@pytest.fixture
def shared():
    return SharedFiles()


def test_file_that_a_newer_checkpoint_refers_to_outlives_the_one_that_created_it(shared):
    first = file_of(1)
    complete(shared, 1, first)
    complete(shared, 2, first, file_of(2, "2.sst"))

    assert shared.checkpoint_deleted(1) == ()
    assert shared.live == {"c1-1.sst", "c2-2.sst"}


def test_file_goes_when_the_last_checkpoint_that_uses_it_is_older_than_all_that_are_left(shared):
    first = file_of(1)
    complete(shared, 1, first)
    complete(shared, 2, first)
    complete(shared, 3, file_of(3))

    assert shared.checkpoint_deleted(1) == ()
    assert shared.checkpoint_deleted(2) == ("c1-1.sst",)
    assert shared.live == {"c3-1.sst"}
    shared.validate()


def test_files_go_with_the_last_checkpoint(shared):
    complete(shared, 1, file_of(1, "1.sst"), file_of(1, "2.sst"))

    assert shared.checkpoint_deleted(1) == ("c1-1.sst", "c1-2.sst")
    assert shared.live == frozenset()
    shared.validate()


def test_file_that_a_verified_checkpoint_refers_to_outlives_all_complete_ones_that_use_it(shared):
    first = file_of(1)
    complete(shared, 1, first)
    shared.verify(2, [file_of(2, "2.sst")])
    shared.verify(3, [first])
    shared.checkpoint_completed(2)

    assert shared.checkpoint_deleted(1) == ()
    shared.validate()
    shared.checkpoint_completed(3)
    assert shared.checkpoint_deleted(2) == ("c2-2.sst",)
    assert shared.live == {"c1-1.sst"}


def test_file_that_only_a_verified_checkpoint_refers_to_goes_when_that_is_given_up(shared):
    complete(shared, 1, file_of(1))
    shared.verify(2, [file_of(2, "2.sst")])
    shared.verify(3, [file_of(1), file_of(3, "3.sst")])
    shared.checkpoint_completed(2)
    shared.checkpoint_deleted(1)

    assert shared.checkpoint_deleted(3) == ("c1-1.sst",)
    assert shared.live == {"c2-2.sst"}
    shared.validate()


def test_checkpoint_is_not_completed_without_being_verified(shared):
    with pytest.raises(KeyError):
        shared.checkpoint_completed(1)


def test_files_of_restored_checkpoints_may_be_referred_to(shared):
    shared.restored(1, [file_of(1)])
    shared.restored(2, [file_of(1), file_of(2, "2.sst")])
    complete(shared, 3, file_of(2, "2.sst"))

    assert shared.needed([1, 2, 3]) == {"c1-1.sst", "c2-2.sst"}
    shared.checkpoint_deleted(1)
    assert shared.checkpoint_deleted(2) == ("c1-1.sst",)


def test_nothing_is_swept_while_the_files_of_a_retained_checkpoint_are_not_known(shared):
    shared.restored(2, [file_of(2)])

    with pytest.raises(AssertionError, match=r"retained checkpoints are not known: \[1\]"):
        shared.needed([1, 2])


def test_checkpoint_that_was_never_complete_has_no_files_to_delete(shared):
    complete(shared, 1, file_of(1))
    shared.verify(2, [file_of(1), file_of(2, "2.sst")])

    assert shared.checkpoint_deleted(2) == ()
    assert shared.live == {"c1-1.sst"}


def test_checkpoint_is_deleted_once(shared):
    complete(shared, 1, file_of(1))
    shared.checkpoint_deleted(1)

    assert shared.checkpoint_deleted(1) == ()


def test_subtasks_may_share_a_file(shared):
    first = file_of(1)
    complete(shared, 1, first)
    complete(shared, 2, first, first)

    assert shared.checkpoint_deleted(1) == ()
    assert shared.checkpoint_deleted(2) == ("c1-1.sst",)


def test_reference_to_a_file_that_no_complete_checkpoint_has_is_an_error(shared):
    complete(shared, 1, file_of(1))

    with pytest.raises(CheckpointError, match="no complete checkpoint has") as caught:
        shared.verify(3, [file_of(1), file_of(2)])
    assert caught.value.context == {"checkpoint_id": 3, "file": "c2-1.sst"}


def test_reference_to_a_file_that_was_deleted_is_an_error(shared):
    complete(shared, 1, file_of(1))
    complete(shared, 2, file_of(2))
    shared.checkpoint_deleted(1)

    with pytest.raises(CheckpointError, match="no complete checkpoint has"):
        shared.verify(3, [file_of(1)])


@pytest.mark.parametrize("complete_first", [True, False])
def test_two_different_files_with_one_name_are_an_error(shared, complete_first):
    # In one checkpoint as well as in two.
    files = [file_of(1, checksum="1" * 16), file_of(1, checksum="2" * 16)]
    if complete_first:
        complete(shared, 1, files.pop(0))

    with pytest.raises(CheckpointError, match="two shared files have one name"):
        shared.verify(1, files)


def test_checkpoint_that_is_refused_leaves_everything_as_it_was(shared):
    complete(shared, 1, file_of(1))
    with pytest.raises(CheckpointError):
        shared.verify(2, [file_of(2), file_of(9)])

    assert shared.live == {"c1-1.sst"}
    complete(shared, 3, file_of(1))


class SharedFilesMachine(RuleBasedStateMachine):
    """Two subtasks whose files come and go, several checkpoints collected and logged, and a simple model.

    The model knows what each complete checkpoint needs, and nothing else.
    """

    def __init__(self):
        super().__init__()
        self.shared = SharedFiles()
        self.newest = 0
        self.retained = 1
        self.locals = [set(), set()]
        self.numbers = 0
        self.pending = {}
        self.verified = {}
        self.complete = {}
        self.store = set()
        """Files of complete checkpoints that are there."""

    @initialize(retained=st.integers(1, 3))
    def begin(self, retained):
        self.retained = retained
        self.flush(0)

    @rule(subtask=st.integers(0, 1))
    def flush(self, subtask):
        self.numbers += 1
        self.locals[subtask].add(f"s{subtask}-{self.numbers}.sst")

    @rule(subtask=st.integers(0, 1))
    def compact(self, subtask):
        self.locals[subtask].clear()
        self.flush(subtask)

    @precondition(lambda self: len(self.pending) + len(self.verified) < 4)
    @rule(data=st.data())
    def trigger(self, data):
        """Refer to a complete checkpoint: an older one if a subtask has not heard of more, or to none."""
        self.newest += 1
        heard = data.draw(st.sampled_from([None, *sorted(self.complete)]))
        known = {file.local: file for file in self.complete.get(heard, ())}
        names = sorted(set().union(*self.locals))
        self.pending[self.newest] = [known.get(name) or file_of(self.newest, name) for name in names]

    @precondition(lambda self: self.pending)
    @rule(data=st.data())
    def verify(self, data):
        checkpoint_id = data.draw(st.sampled_from(sorted(self.pending)))
        files = self.pending.pop(checkpoint_id)
        if all(file.created_by == checkpoint_id or file.name in self.store for file in files):
            self.shared.verify(checkpoint_id, files)
            self.verified[checkpoint_id] = files
        else:
            with pytest.raises(CheckpointError):
                self.shared.verify(checkpoint_id, files)
            self.give_up(checkpoint_id)

    @precondition(lambda self: self.pending or self.verified)
    @rule(data=st.data())
    def abort(self, data):
        self.give_up(data.draw(st.sampled_from(sorted(self.pending | self.verified))))

    @precondition(lambda self: self.verified)
    @rule(data=st.data())
    def finish(self, data):
        checkpoint_id = data.draw(st.sampled_from(sorted(self.verified)))
        files = self.verified.pop(checkpoint_id)
        self.shared.checkpoint_completed(checkpoint_id)
        assert {file.name for file in files if file.created_by != checkpoint_id} <= self.store
        self.complete[checkpoint_id] = files
        self.store |= {file.name for file in files}
        for subsumed in [other for other in self.pending | self.verified if other < checkpoint_id]:
            self.give_up(subsumed)
        while len(self.complete) > self.retained:
            self.delete(min(self.complete))

    def give_up(self, checkpoint_id):
        self.pending.pop(checkpoint_id, None)
        self.verified.pop(checkpoint_id, None)
        self.remove(self.shared.checkpoint_deleted(checkpoint_id))

    def delete(self, checkpoint_id):
        del self.complete[checkpoint_id]
        self.remove(self.shared.checkpoint_deleted(checkpoint_id))

    def teardown(self):
        """Delete all, as at the end of a job, oldest first."""
        for checkpoint_id in sorted(self.pending | self.verified):
            self.give_up(checkpoint_id)
        for checkpoint_id in sorted(self.complete):
            self.delete(checkpoint_id)
        assert self.store == self.shared.live == set()

    def remove(self, names):
        assert set(names) <= self.store, "each file is deleted once"
        self.store -= set(names)

    @invariant()
    def live_are_the_files_that_checkpoints_need(self):
        self.shared.validate()
        needed = {file.name for files in self.complete.values() for file in files}
        needed |= {
            file.name
            for checkpoint_id, files in self.verified.items()
            for file in files
            if file.created_by != checkpoint_id
        }
        assert self.store == self.shared.live == needed


TestSharedFilesMachine = SharedFilesMachine.TestCase
