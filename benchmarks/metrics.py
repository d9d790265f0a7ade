"""What measuring costs a slot: a round of its loop, a batch through an operator, a report.

    python benchmarks/metrics.py

Each is the least of several runs, alone, so that the figures hold on a busy machine too.  Beside them stands
what a slot needs for the 1,024 records of a batch in `spine.py`.
"""

import timeit
from types import SimpleNamespace

from raystream.clock import SystemClock
from raystream.graph.physical import Edge, Partitioning
from raystream.operators.operator import Sent, drop
from raystream.records.batch import RowBatch
from raystream.runtime import log_place
from raystream.runtime.task_times import TaskTimes

BATCH_RECORDS = 1_024
OPERATORS = 4
"""Of the job in `spine.py`, of which three emit."""
RUNS = 7
TIMES = 20_000


class Busy:
    """A subtask that always has something to do."""

    def __init__(self, number: int) -> None:
        self.vertex = SimpleNamespace(id=number)
        self.outputs = SimpleNamespace(has_room=True)
        self.has_work = True


def least_us(call) -> float:
    """Return the time of a call in µs, the least of some runs."""
    return min(timeit.repeat(call, number=TIMES, repeat=RUNS)) / TIMES * 1e6


def round_us() -> float:
    """Return what the times of a source and its consumer cost, in a round in which both run."""
    source, consumer = subtasks = [Busy(0), Busy(1)]
    edge = Edge(
        position=0,
        source=0,
        source_operator=0,
        tag=None,
        target=1,
        partitioning=Partitioning.HASH,
        key_selector=None,
        first_channel=0,
    )
    plan = SimpleNamespace(vertices=[one.vertex for one in subtasks], edges=[edge])
    times = TaskTimes(SystemClock(), plan, subtasks)

    def run() -> None:
        times.begin()
        for subtask in (consumer, source):
            log_place.here.at = log_place.NOWHERE
            times.ran(subtask)
        log_place.here.at = log_place.NOWHERE
        times.end()

    return least_us(run)


def main() -> None:
    """Print the table."""
    batch, sent = RowBatch(list(range(BATCH_RECORDS))), Sent(drop)
    emitted_us = least_us(lambda: sent.emit(batch)) - least_us(lambda: drop(batch))
    turn_us = round_us()
    both_us = turn_us + (OPERATORS - 1) * emitted_us
    print(f"{'a round of two subtasks':40}{turn_us:8.2f} µs")
    print(f"{'a batch through an operator':40}{emitted_us:8.2f} µs")
    print(f"{'a round of the job, of 1,024 records':40}{both_us:8.2f} µs")
    print(f"{'for each record':40}{both_us / BATCH_RECORDS:8.4f} µs")


if __name__ == "__main__":
    main()
