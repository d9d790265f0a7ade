"""A `TwoPhaseCommitSink` under the faults of the simulation: the example's, in a real database."""

import sqlite3
from collections import Counter

import pytest

from jobs.orders_to_sqlite import SqliteSink
from raystream.testing import simulate
from raystream.testing.faults import CancelAndResume
from tests.simulation import jobs

pytestmark = pytest.mark.simulation


def counts_into(path):
    def job(env):
        jobs.twice_keyed(env).sink_to(SqliteSink(path), uid="database")

    return job


def test_database_holds_every_record_once_and_nothing_staged_is_left(tmp_path, seeds):
    expected = Counter(jobs.expected_twice_keyed())
    for seed in seeds[: len(seeds) // 10]:
        path = str(tmp_path / f"{seed}.db")
        report = simulate(counts_into(path), seeds=[seed], expected=())
        report.check()

        db = sqlite3.connect(path)
        assert Counter(db.execute("SELECT * FROM totals").fetchall()) == expected, seed
        # A cancelled job leaves what it had pre-committed: its newest checkpoint may refer to it.
        if not any(isinstance(fault, CancelAndResume) for fault in report.rows[0].faults):
            # What a savepoint refers to is kept.
            assert db.execute("SELECT * FROM transactions WHERE phase = 'staged'").fetchall() == [], seed
        db.close()
