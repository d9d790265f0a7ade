"""Whatever goes wrong, every record comes exactly once, alive or as a dead letter."""

import pytest

from raystream import KeyedProcessFunction, ListStateDescriptor
from raystream.testing import simulate
from tests.simulation import jobs

pytestmark = pytest.mark.simulation

UNLUCKY = 7


class Positions(KeyedProcessFunction):
    """Emits which record of its key this is, and then fails for some of them."""

    def open(self, ctx):
        self.seen = ctx.get_list_state(ListStateDescriptor("seen", int))

    def process_element(self, value, ctx):
        self.seen.add(value)
        yield ctx.current_key, len(self.seen.get())
        if len(self.seen.get()) % 4 == 0:
            raise LookupError(len(self.seen.get()))


def parsed(value):
    if value % UNLUCKY == 0:
        raise ValueError(value)
    return value


def job(env):
    numbers = jobs.numbers(env).map(parsed, name="parse", uid="parse", on_error="dead-letter")
    positions = numbers.key_by(jobs.key_of).process(
        Positions(), name="positions", uid="positions", on_error="dead-letter"
    )
    letters = env.dead_letters()
    dead = letters.map(lambda letter: (letter.uid, letter.key, letter.message), name="told", uid="told")
    return positions.union(dead)


def expected():
    alive = [value for value in jobs.NUMBERS if value % UNLUCKY]
    counts: dict[str, int] = {}
    out = [("parse", None, str(value)) for value in jobs.NUMBERS if value % UNLUCKY == 0]
    for key in map(jobs.key_of, alive):
        counts[key] = count = counts.get(key, 0) + 1
        out.append((key, count) if count % 4 else ("positions", key, str(count)))
    return out


def test_records_and_dead_letters_are_exactly_once_whatever_goes_wrong(seeds):
    simulate(job, seeds=seeds[: len(seeds) // 5], expected=expected()).check()
