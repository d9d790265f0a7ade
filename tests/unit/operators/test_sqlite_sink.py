"""The documented example of a `TwoPhaseCommitSink` keeps the contract, whatever dies in which call."""

import sqlite3
from pathlib import Path

import pytest

from jobs.orders_to_sqlite import SqliteSink
from raystream.testing import SinkContract
from raystream.testing.sink_run import SinkSubtask
from tests.unit.connectors.sinks import context_of


class TestSqliteSink(SinkContract):
    """With the database of the example, as every transactional sink is tested."""

    @pytest.fixture(autouse=True)
    def _database(self, tmp_path):
        self.path = str(tmp_path / "totals.db")

    def sink(self):
        return SqliteSink(self.path)

    def record(self, number):
        return ("customer", number, 0)

    def visible(self):
        return self.select("SELECT * FROM totals") if Path(self.path).exists() else []

    def select(self, query):
        with sqlite3.connect(self.path) as db:
            found = db.execute(query).fetchall()
        db.close()
        return found

    def test_nothing_that_dead_attempts_have_staged_is_left(self):
        self.subtask()
        subtask = self.subtask(attempt=2)
        subtask.write(1)
        subtask.snapshot(1)
        self.subtask(attempt=3)
        assert self.select("SELECT * FROM staged") == self.select("SELECT * FROM transactions") == []

    def test_what_a_savepoint_refers_to_outlives_an_attempt_that_restored_something_older(self):
        subtask = self.subtask()
        subtask.write(1)
        state = subtask.snapshot(1)
        subtask.writer.keep(state)
        subtask.writer.sync()
        self.subtask(attempt=2)
        self.subtask(attempt=3, restored=state)
        self.assert_visible(1)

    def test_pre_commit_that_comes_again_stages_nothing_twice(self):
        sink = self.sink()
        sink.open(None)
        lines = [self.record(1)]
        sink.write(sink.begin("a name"), lines)
        sink.pre_commit("a name")
        sink.lines["a name"] = lines
        sink.pre_commit("a name")
        sink.commit("a name")
        self.assert_visible(1)

    def test_commit_of_what_is_in_another_database_is_an_error(self):
        subtask = self.subtask()
        subtask.write(1)
        state = subtask.snapshot(1)
        self.path += ".other"
        with pytest.raises(LookupError, match="is that what was written to"):
            self.subtask(attempt=2, restored=state)


class DiedError(Exception):
    """Stands for a process that dies."""


class Mortal(SqliteSink):
    """Dies in the n-th call to the database, before it or after its commit."""

    left = -1
    after = False

    def database(self):
        cls, inner = type(self), super().database()
        cls.left -= 1
        return _Dying(inner, dies=cls.left == 0, after=cls.after)


class _Dying:
    def __init__(self, inner, *, dies, after):
        self.inner, self.dies, self.after = inner, dies, after

    def __enter__(self):
        if self.dies and not self.after:
            raise DiedError
        return self.inner.__enter__()

    def __exit__(self, *error):
        self.inner.__exit__(*error)
        if self.dies:
            raise DiedError


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", range(1, 9))
def test_crash_at_every_call_of_the_database_loses_and_doubles_nothing(tmp_path, step, after):
    path = str(tmp_path / "totals.db")
    Mortal.left, Mortal.after = step, after
    complete, restored, attempt = 0, [], 0
    while complete < 3:
        attempt += 1
        try:
            subtask = attempted(Mortal(path), attempt, restored)
            for checkpoint_id in range(complete + 1, 4):
                subtask.write(checkpoint_id)
                restored = subtask.snapshot(checkpoint_id)
                complete = checkpoint_id
                subtask.complete(checkpoint_id)
        except DiedError:
            continue
    assert Mortal.left < 1, "nothing has died"
    attempted(SqliteSink(path), attempt + 1, restored)

    with sqlite3.connect(path) as db:
        assert db.execute("SELECT orders FROM totals").fetchall() == [(1,), (2,), (3,)]
        assert db.execute("SELECT COUNT(*) FROM staged").fetchall() == [(0,)]
    db.close()


def attempted(sink, attempt, restored):
    """Open the sink as an attempt does."""
    context = context_of(attempt=attempt)
    subtask = SinkSubtask(sink, context, lambda number: ("customer", number, 0), restored)
    subtask.writer.start()
    return subtask
