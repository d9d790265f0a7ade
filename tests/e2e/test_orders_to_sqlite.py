"""The sink of the SQLite example holds every order once, whatever is killed."""

import sqlite3
import sys
from collections import defaultdict
from itertools import islice
from pathlib import Path

import pytest

import jobs.orders_to_sqlite as example
from jobs.orders_to_sqlite import AddUp, SqliteSink, order
from raystream import JobStatus, StreamEnvironment
from raystream.testing import Barrier, Crash, TestSource
from tests.e2e.conftest import ROOT

JOB = ROOT / "jobs/orders_to_sqlite.py"
ORDERS = 30_000


def expected(count: int) -> list[tuple[str, int, int]]:
    totals: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    lines = []
    for index in range(count):
        customer, cents = order(index)
        totals[customer][0] += 1
        totals[customer][1] += cents
        lines.append((customer, *totals[customer]))
    return sorted(lines)


def select(db: Path, query: str) -> list[tuple]:
    connection = sqlite3.connect(db)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def totals_in(db: Path) -> list[tuple]:
    return sorted(select(db, "SELECT customer, orders, cents FROM totals"))


def with_checkpoints(directory: Path) -> list[str]:
    return [
        "--runner", "local", "-p", "2", "-D", "execution.checkpointing.interval=50ms",
        "-D", f"execution.checkpointing.dir={directory}",
    ]  # fmt: skip


def test_job_that_is_killed_goes_on_without_losing_or_doubling_an_order(raystream, start, tmp_path):
    db, options = tmp_path / "orders.db", with_checkpoints(tmp_path / "checkpoints")
    arguments = [JOB, "--db", db, "--orders", ORDERS]
    for resume in ([], ["-s", "latest"]):
        process = start("run", *options, *resume, *arguments, "--rate", 1_000)
        checkpoints = (line for line in process.stderr if line.startswith("chk-"))
        assert len(list(islice(checkpoints, 5))) == 5, "the job ended before it was killed"
        process.kill()
        process.wait()
    visible = totals_in(db)
    assert set(visible) < set(expected(ORDERS))

    outcome = raystream("run", *options, "-s", "latest", *arguments)

    assert outcome.code == 0, outcome.err
    assert totals_in(db) == expected(ORDERS)


def test_job_without_checkpoints_writes_everything_at_its_end(raystream, tmp_path):
    outcome = raystream("run", "--runner", "local", JOB, "--db", tmp_path / "orders.db", "--orders", 2_000)

    assert outcome.code == 0, outcome.err
    assert totals_in(tmp_path / "orders.db") == expected(2_000)


def test_relative_path_of_the_database_is_one_of_where_the_job_was_started(monkeypatch, tmp_path):
    class PathTakenError(Exception):
        pass

    def sink(path):
        raise PathTakenError(path)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["orders_to_sqlite.py", "--db", "orders.db"])
    monkeypatch.setattr(example, "SqliteSink", sink)

    with pytest.raises(PathTakenError, match=str(tmp_path / "orders.db")):
        example.main()


@pytest.mark.parametrize("parallelism", [1, 2, 3])
def test_restarts_leave_nothing_staged_and_every_order_once(tmp_path, parallelism, monkeypatch):
    monkeypatch.setattr(example, "CUSTOMERS", 10)
    db, orders = tmp_path / "orders.db", [order(index) for index in range(400)]
    scripts = [
        [Barrier(), *part[:70], Barrier(), *part[70:100], Crash(), *part[100:], Barrier()]
        for part in (orders[first::3] for first in range(3))
    ]
    env = StreamEnvironment(
        runner="local",
        parallelism=parallelism,
        execution_checkpointing_dir=str(tmp_path / "checkpoints"),
        execution_checkpointing_interval="10ms",
        execution_checkpointing_min_pause="0ms",
        restart_strategy_type="fixed-delay",
        restart_strategy_fixed_delay_delay="1ms",
    )
    totals = env.from_source(TestSource(*scripts), uid="orders").key_by(lambda order: order[0])
    totals.process(AddUp(), uid="add-up").sink_to(SqliteSink(str(db)), uid="sqlite")

    result = env.submit("orders").wait("60s")

    assert (result.status, result.restarts >= 1) == (JobStatus.FINISHED, True)
    counted = defaultdict(list)
    for customer, number, _ in totals_in(db):
        counted[customer].append(number)
    assert {customer: sorted(numbers) for customer, numbers in counted.items()} == {
        customer: list(range(1, 1 + sum(other == customer for other, _ in orders))) for customer in counted
    }
    assert len(totals_in(db)) == len(orders)
    assert select(db, "SELECT * FROM staged") == []
    assert select(db, "SELECT * FROM transactions WHERE phase <> 'committed'") == []
