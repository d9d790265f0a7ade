"""A job master dies at every call of its store, before and after it, and the next one ends the job alike."""

import pytest

from raystream.ids import JobStatus
from raystream.runtime import messages as msg
from raystream.storage.log_entries import (
    AttemptStarted,
    CheckpointCompletedEntry,
    SavepointCompleted,
    Terminal,
)
from raystream.storage.stores import open_file_system
from tests.unit.runtime.coordinator_world import INTERVAL_MS, JOB_ID, World

CALLS = frozenset({"read", "write", "create_exclusive", "list_dir", "exists", "delete_file", "delete_dir"})
CALLS_MAX = 500


class ProcessDied(BaseException):
    """The process is gone: nothing catches this."""


class DeadlyStore:
    """A store at whose n-th call the process dies, before it has had an effect or after.

    Attributes:
        left: calls that are left, the deadly one included; never ends when it is negative.
    """

    def __init__(self, left=-1, *, after=False):
        self.left, self.after, self.dead = left, after, False

    def open(self, url):
        return _Watched(open_file_system(url), self)

    def called(self, *, after):
        if self.dead:
            raise ProcessDied
        self.left -= not after
        if self.left == 0 and self.after == after:
            self.dead = True
            raise ProcessDied


class _Watched:
    def __init__(self, fs, store):
        self._fs, self._store = fs, store

    def __getattr__(self, name):
        found = getattr(self._fs, name)
        if name not in CALLS:
            return found

        def call(*arguments):
            self._store.called(after=False)
            result = found(*arguments)
            self._store.called(after=True)
            return result

        return call


def life(tmp_path, store, **options):
    """Return a job master whose store is this one."""

    class Life(World):
        open_fs = staticmethod(store.open)
        seed = store.left  # Another one in every life, as it is.

    return Life(tmp_path / "checkpoints", savepoints=tmp_path / "savepoints", **options)


def to_its_end(world, end):
    """Run a job to its end, or to the death of its master; its client asks every master for the end."""
    world.start().restart()
    if world.coordinator.finished:
        return
    world.run_for(INTERVAL_MS)
    world.fail()
    world.restart().run_for(2 * INTERVAL_MS)
    end(world)
    world.run_for(INTERVAL_MS)


ENDS = {
    "input ends": (World.end_input, JobStatus.FINISHED),
    "stop": (lambda world: world.stop("stop"), JobStatus.FINISHED),
    "cancel": (lambda world: world.cancel("cancel"), JobStatus.CANCELED),
}


def files_of(tmp_path):
    """Return what is left of a job, but for its log and what differs from run to run."""
    job = tmp_path / "checkpoints" / JOB_ID
    return {path.relative_to(job).parts[0] for path in job.rglob("*") if path.is_file()} - {"log"}


def entries_of(tmp_path):
    return life(tmp_path, DeadlyStore()).storage.log.read()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", ENDS)
def test_job_ends_as_it_should_whenever_its_master_dies(tmp_path, name, after):
    end, status = ENDS[name]
    deaths = 0
    for call in range(1, CALLS_MAX):
        place = tmp_path / str(call)
        store = DeadlyStore(call, after=after)
        world = life(place, store)
        try:
            to_its_end(world, end)
        except ProcessDied:
            deaths += 1
        entries = entries_of(place)
        later = life(place, DeadlyStore())
        to_its_end(later, end)

        check_end(place, later, status)
        logged = entries_of(place)
        stays = unpruned(entries)
        assert unpruned(logged)[: len(stays)] == stays, "what was true is true"
        if any(isinstance(entry, Terminal) for entry in entries):
            assert not later.sent, "a job that has ended never runs again"
            assert logged == entries
        if any(ends_job(entry) for entry in entries):
            assert not later.commands(msg.Start), "nothing is left but commits"
        if not store.dead:
            break
    assert deaths > 40, deaths


def check_end(place, world, status):
    """The job has ended, as its log and its archive say, and has left what it should."""
    assert world.view.status is status, world.view.error
    assert world.coordinator.finished
    kept = {"archive"} | ({f"chk-{world.view.last_checkpoint_id}"} if status is JobStatus.CANCELED else set())
    assert files_of(place) == kept
    logged = entries_of(place)
    assert [type(entry) for entry in logged].count(Terminal) == 1
    assert logged[-1].status is status
    ids = [e.checkpoint_id for e in logged if isinstance(e, CheckpointCompletedEntry | SavepointCompleted)]
    assert ids == sorted(set(ids)), "no id is given twice"
    attempts = [e.attempt for e in logged if isinstance(e, AttemptStarted)]
    assert attempts == sorted(set(attempts))


def unpruned(entries):
    return [entry for entry in entries if not isinstance(entry, CheckpointCompletedEntry)]


def ends_job(entry):
    match entry:
        case CheckpointCompletedEntry(final=True) | SavepointCompleted(stop=True):
            return True
    return False
