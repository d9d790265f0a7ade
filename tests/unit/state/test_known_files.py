"""A checkpoint refers to files of which it is certain that they live until it is complete itself."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from raystream.handles import SharedFile
from raystream.protocol.shared_files import SharedFiles
from raystream.state.rocksdb_snapshot import KnownFiles


def take(known, checkpoint_id, *names):
    """Store a snapshot with these files; return for which checkpoint each was written."""
    found = known.refer(checkpoint_id, names)
    files = {name: found.get(name) or file_of(checkpoint_id, name) for name in names}
    known.uploaded(checkpoint_id, files)
    return [file.created_by for file in files.values()]


def file_of(checkpoint_id, name):
    return SharedFile(
        name=f"c{checkpoint_id}-{name}", local=name, created_by=checkpoint_id, size_bytes=1, checksum="0" * 16
    )


def test_files_of_a_complete_checkpoint_are_referred_to():
    known = KnownFiles()
    assert take(known, 1, "a", "b") == [1, 1]
    known.completed(1)
    assert take(known, 2, "a", "c") == [1, 2]
    known.completed(2)
    assert take(known, 3, "a", "c", "d") == [1, 2, 3]


def test_file_of_a_checkpoint_that_is_not_complete_is_stored_anew():
    known = KnownFiles()
    take(known, 1, "a")
    assert take(known, 2, "a") == [2]


def test_file_of_an_aborted_checkpoint_is_stored_anew():
    known = KnownFiles()
    take(known, 1, "a")
    known.completed(1)
    take(known, 2, "a", "b")  # Of 2 nothing is ever heard again.
    assert take(known, 3, "a", "b") == [1, 3]
    known.completed(3)
    assert take(known, 4, "a", "b") == [1, 3]


def test_file_that_a_pending_checkpoint_has_stored_anew_is_not_referred_to_by_its_older_name():
    # When 2 is complete, and 1 deleted, nothing has the file by the name that it got from 1.
    known = KnownFiles()
    take(known, 1, "a")
    assert take(known, 2, "a") == [2]
    known.completed(1)
    assert take(known, 3, "a") == [3]
    known.completed(2)
    known.completed(3)
    assert take(known, 4, "a") == [3]


def test_completion_of_what_was_not_taken_here_changes_nothing():
    known = KnownFiles()
    take(known, 1, "a")
    known.completed(1)
    known.completed(2)
    assert take(known, 3, "a") == [1]


def test_files_of_the_checkpoint_that_was_restored_are_referred_to():
    known = KnownFiles()
    known.restored({"a": file_of(7, "a")})
    assert take(known, 9, "a", "b") == [7, 9]


class ReferencesMachine(RuleBasedStateMachine):
    """Checkpoints overlap, and a subtask hears of completions late: nothing that it refers to is gone."""

    def __init__(self):
        super().__init__()
        self.shared, self.known = SharedFiles(), KnownFiles()
        self.retained, self.newest, self.numbers = 1, 0, 0
        self.names = []
        self.pending = {}
        self.complete = []
        self.unheard = []

    @initialize(retained=st.integers(1, 3))
    def begin(self, retained):
        self.retained = retained

    @rule()
    def flush(self):
        self.numbers += 1
        self.names = [*self.names, f"{self.numbers}.sst"]

    @rule()
    def compact(self):
        self.numbers += 1
        self.names = [f"{self.numbers}.sst"]

    @precondition(lambda self: len(self.pending) < 3)
    @rule()
    def trigger(self):
        self.newest += 1
        found = self.known.refer(self.newest, self.names)
        self.pending[self.newest] = {
            name: found.get(name) or file_of(self.newest, name) for name in self.names
        }
        self.known.uploaded(self.newest, self.pending[self.newest])

    @precondition(lambda self: self.pending)
    @rule(data=st.data())
    def abort(self, data):
        del self.pending[data.draw(st.sampled_from(sorted(self.pending)))]

    @precondition(lambda self: self.pending)
    @rule(data=st.data())
    def finish(self, data):
        checkpoint_id = data.draw(st.sampled_from(sorted(self.pending)))
        files = self.pending.pop(checkpoint_id).values()
        self.shared.verify(checkpoint_id, files)
        self.shared.checkpoint_completed(checkpoint_id)
        self.complete.append(checkpoint_id)
        self.unheard.append(checkpoint_id)
        self.pending = {other: files for other, files in self.pending.items() if other > checkpoint_id}
        while len(self.complete) > self.retained:
            self.shared.checkpoint_deleted(self.complete.pop(0))
        self.shared.validate()

    @precondition(lambda self: self.unheard)
    @rule()
    def hear(self):
        self.known.completed(self.unheard.pop(0))


TestReferencesMachine = ReferencesMachine.TestCase
