"""The jobs that a campaign simulates, by the shape of their graph or what is in it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.simulation import connected_jobs, event_time_jobs, jobs


@dataclass(frozen=True)
class Topology:
    """A job, its output, and what of it is there even when records may come twice."""

    job: Callable[..., Any]
    expected: Callable[[], list[Any]]
    at_least: Callable[[], list[Any]] | None = None
    """None for all of it."""


def diamond(env):
    """One stream, two ways, together again in one keyed operator."""
    numbers = jobs.numbers(env)
    evens = numbers.filter(lambda value: value % 2 == 0)
    odds = numbers.filter(lambda value: value % 2 == 1).rebalance().map(_same, name="same", uid="same")
    return evens.union(odds).key_by(jobs.key_of).process(jobs.Remember(), name="remember", uid="remember")


def _same(value):
    return value


def _firsts() -> list[Any]:
    """What does not depend on how often a record comes."""
    return [record for record in jobs.expected_typed() if record[0] == "first"]


def _fours() -> list[Any]:
    """Without the records themselves: up to three are held back in the end when some have come twice."""
    return [record for record in connected_jobs.expected_held() if isinstance(record, tuple)]


def _counts() -> list[Any]:
    """What `Remember` emits of every record, without what it emits of the last one of a key."""
    return [record for record in jobs.expected_keyed() if len(record) == 2]


TOPOLOGIES = {
    "chain": Topology(jobs.chained, jobs.expected_chained),
    "key_by": Topology(jobs.keyed, jobs.expected_keyed, _counts),
    "two key_bys": Topology(jobs.twice_keyed, jobs.expected_twice_keyed),
    "union": Topology(jobs.united, jobs.expected_united),
    "connect": Topology(connected_jobs.paired, connected_jobs.expected_paired),
    "connect in turn": Topology(connected_jobs.paired_in_turn, connected_jobs.expected_paired),
    "broadcast": Topology(connected_jobs.scaled, connected_jobs.expected_scaled),
    "diamond": Topology(diamond, jobs.expected_keyed, _counts),
    "timers": Topology(event_time_jobs.impatient, event_time_jobs.expected_readings),
    "operator state": Topology(connected_jobs.held, connected_jobs.expected_held, _fours),
    "classes": Topology(jobs.typed, jobs.expected_typed, _firsts),
    "large records": Topology(jobs.heavy, jobs.expected_heavy),
}
