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
    shared.checkpoint_completed(checkpoint_id, files)
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
    """Two subtasks whose files come and go, several checkpoints under way, and a simple model.

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
        self.complete = {}
        self.store = set()
        """Files of complete checkpoints that are there."""

    @initialize(retained=st.integers(1, 3))
    def begin(self, retained):
        self.retained = retained

    @rule(subtask=st.integers(0, 1))
    def flush(self, subtask):
        self.numbers += 1
        self.locals[subtask].add(f"s{subtask}-{self.numbers}.sst")

    @rule(subtask=st.integers(0, 1))
    def compact(self, subtask):
        self.locals[subtask].clear()
        self.flush(subtask)

    @precondition(lambda self: len(self.pending) < 3)
    @rule()
    def trigger(self):
        self.newest += 1
        known = {}
        if self.complete and not self.pending:  # What is pending may store a file anew.
            known = {file.local: file for file in self.complete[max(self.complete)]}
        names = sorted(set().union(*self.locals))
        self.pending[self.newest] = [known.get(name) or file_of(self.newest, name) for name in names]

    @precondition(lambda self: self.pending)
    @rule(data=st.data())
    def abort(self, data):
        checkpoint_id = data.draw(st.sampled_from(sorted(self.pending)))
        del self.pending[checkpoint_id]
        assert self.shared.checkpoint_deleted(checkpoint_id) == ()

    @precondition(lambda self: self.pending)
    @rule(data=st.data())
    def finish(self, data):
        checkpoint_id = data.draw(st.sampled_from(sorted(self.pending)))
        files = self.pending.pop(checkpoint_id)
        complete(self.shared, checkpoint_id, *files)
        self.complete[checkpoint_id] = files
        self.store |= {file.name for file in files}
        for subsumed in [other for other in self.pending if other < checkpoint_id]:
            del self.pending[subsumed]
            assert self.shared.checkpoint_deleted(subsumed) == ()
        while len(self.complete) > self.retained:
            oldest = min(self.complete)
            del self.complete[oldest]
            self.remove(self.shared.checkpoint_deleted(oldest))

    @rule()
    def end(self):
        """Delete all, as at the end of a job, oldest first."""
        self.pending.clear()
        for checkpoint_id in sorted(self.complete):
            del self.complete[checkpoint_id]
            self.remove(self.shared.checkpoint_deleted(checkpoint_id))
        self.locals = [set(), set()]

    def remove(self, names):
        assert set(names) <= self.store, "each file is deleted once"
        self.store -= set(names)

    @invariant()
    def live_are_the_files_that_complete_checkpoints_need(self):
        self.shared.validate()
        needed = {file.name for files in self.complete.values() for file in files}
        assert self.store == self.shared.live == needed


TestSharedFilesMachine = SharedFilesMachine.TestCase
