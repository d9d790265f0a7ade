"""Sources of very different lengths: checkpoints go on when some have ended, and those stay ended."""

import pytest

from raystream.testing import TestSource, simulate
from tests.simulation.jobs import COUNT, NUMBERS, Tally, key_of, numbers
from tests.simulation.test_exactly_once import ONE_CRASH

pytestmark = pytest.mark.simulation

SHORT = NUMBERS[:3]


def lopsided(env):
    """A source that has ended before the first checkpoint is complete, alone and joined to a long one."""
    short = env.from_source(TestSource(SHORT), name="short", uid="short")
    alone = short.key_by(key_of).process(Tally(), name="alone", uid="alone")
    long = numbers(env, rate=600)
    joined = short.union(long).key_by(key_of).process(Tally(), name="joined", uid="joined")
    return alone.map(lambda record: ("alone", *record), name="mark", uid="mark").union(joined)


def tallies(values):
    seen = {}
    for value in values:
        seen[key_of(value)] = seen.get(key_of(value), 0) + 1
        yield "tally", key_of(value), seen[key_of(value)]


def expected():
    return [*(("alone", *record) for record in tallies(SHORT)), *tallies([*SHORT, *NUMBERS[:COUNT]])]


def test_output_is_there_exactly_once_whatever_goes_wrong_behind_the_end_of_a_source(seeds):
    simulate(lopsided, seeds=seeds[: len(seeds) // 3], expected=expected()).check()


def test_slots_crash_in_every_phase_of_checkpoints_in_which_a_source_had_ended():
    simulate(lopsided, seeds=range(18), faults=ONE_CRASH, expected=expected()).check()
