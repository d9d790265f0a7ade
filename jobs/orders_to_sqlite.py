"""Writes the running total of every customer into a SQLite database, each order exactly once.

    raystream run -p 2 -D execution.checkpointing.interval=1s jobs/orders_to_sqlite.py --db orders.db
    sqlite3 orders.db 'SELECT customer, MAX(orders), MAX(cents) FROM totals GROUP BY customer LIMIT 10'

A line `customer, orders, cents` appears in the table `totals` for each order: how many the customer has
made so far, and their sum.  Kill the job, or a worker of it, at any time: when it goes on from its last
checkpoint there is still one line for each order, and none is wrong.

`SqliteSink` shows how a sink of your own does that.  The orders are made up.  The database is a file, so all
slots must be on its node; for a database on the network only the calls of `sqlite3` would be others.
"""

import argparse
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from raystream import KeyedProcessFunction, StreamEnvironment, TwoPhaseCommitSink, ValueStateDescriptor
from raystream.connectors.datagen import DatagenSource

CUSTOMERS = 1_000
LOCK_TIMEOUT_S = 60

# ---- the sink ---------------------------------------------------------------


class SqliteSink(TwoPhaseCommitSink):
    """Appends lines to `totals`.

    The pre-commit puts the lines of a transaction into `staged`, where nobody looks; the commit moves
    them, and marks the transaction as committed, in one transaction of the database.  So it may be
    repeated, and two may come at the same time.
    """

    transaction_type = str  # A transaction is its name; its lines are not part of a checkpoint.

    def __init__(self, path: str) -> None:
        self.path = path

    def open(self, context):
        self.lines = {}
        with self.database() as db:
            db.execute("CREATE TABLE IF NOT EXISTS totals (customer, orders, cents)")
            db.execute("CREATE TABLE IF NOT EXISTS staged (txn, customer, orders, cents)")
            db.execute("CREATE TABLE IF NOT EXISTS transactions (txn PRIMARY KEY, phase)")
            db.execute("CREATE INDEX IF NOT EXISTS staged_by_txn ON staged (txn)")

    def begin(self, name):
        self.lines[name] = []
        return name

    def write(self, transaction, values):
        self.lines[transaction] += values

    def pre_commit(self, transaction):
        lines = [(transaction, *line) for line in self.lines[transaction]]
        with self.database() as db:
            # Not there unless an earlier call has failed after all.
            if db.execute("INSERT OR IGNORE INTO transactions VALUES (?, 'staged')", (transaction,)).rowcount:
                db.executemany("INSERT INTO staged VALUES (?, ?, ?, ?)", lines)
        del self.lines[transaction]

    def commit(self, transaction):
        with self.database() as db:
            done = "UPDATE transactions SET phase = 'committed' WHERE txn = ? AND phase <> 'committed'"
            if db.execute(done, (transaction,)).rowcount:
                moved = "INSERT INTO totals SELECT customer, orders, cents FROM staged WHERE txn = ?"
                db.execute(moved, (transaction,))
                db.execute("DELETE FROM staged WHERE txn = ?", (transaction,))
            elif not db.execute("SELECT 1 FROM transactions WHERE txn = ?", (transaction,)).fetchone():
                raise LookupError(f"{transaction} is not in {self.path}: is that what was written to?")

    def abort(self, transaction):
        self.lines.pop(transaction, None)
        with self.database() as db:
            db.execute("DELETE FROM staged WHERE txn = ?", (transaction,))
            db.execute("DELETE FROM transactions WHERE txn = ?", (transaction,))

    def unfinished(self):
        with self.database() as db:
            found = db.execute("SELECT txn FROM transactions WHERE phase = 'staged'").fetchall()
        return {name: name for (name,) in found}

    def keep(self, transaction):
        with self.database() as db:
            kept = "UPDATE transactions SET phase = 'kept' WHERE txn = ? AND phase = 'staged'"
            db.execute(kept, (transaction,))

    @contextmanager
    def database(self) -> Iterator[sqlite3.Connection]:
        """Open the database for one of its transactions; calls come from several threads."""
        with closing(sqlite3.connect(self.path, timeout=LOCK_TIMEOUT_S)) as db, db:
            yield db


# ---- the job ----------------------------------------------------------------


class AddUp(KeyedProcessFunction):
    """Emits customer, number of orders and sum so far, for each order."""

    def open(self, ctx):
        self.totals = ctx.get_state(ValueStateDescriptor("totals", tuple[int, int], default=(0, 0)))

    def process_element(self, value, ctx):
        orders, cents = self.totals.value()
        total = (orders + 1, cents + value[1])
        self.totals.update(total)
        yield (ctx.current_key, *total)


def order(index: int) -> tuple[str, int]:
    """Return customer and cents of an order, always the same for one index."""
    return f"customer {index * 7919 % CUSTOMERS}", 100 + index * 104_729 % 9_900


def main() -> None:
    """Build the job from the command line's arguments and run it."""
    parser = argparse.ArgumentParser(description="Write running totals into SQLite, exactly once.")
    parser.add_argument("--db", required=True, help="file of the database; made when it is not there")
    parser.add_argument("--orders", type=int, default=100_000, help="number of orders")
    parser.add_argument("--rate", type=int, help="orders per second; as many as possible without it")
    options = parser.parse_args()
    database = Path(options.db).absolute()  # The processes of the job have other working directories.

    env = StreamEnvironment()
    (
        env.from_source(
            DatagenSource(order, count=options.orders, rate=options.rate), name="orders", uid="orders"
        )
        .key_by(lambda order: order[0])
        .process(AddUp(), name="add up", uid="add-up")
        .sink_to(SqliteSink(str(database)), name="sqlite", uid="sqlite")
    )
    env.execute("orders to sqlite")


if __name__ == "__main__":
    main()
