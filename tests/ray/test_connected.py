"""Keyed and broadcast state of a job with two inputs outlive the death of a slot's process."""

from collections import Counter

from raystream import JobStatus
from raystream.connectors.datagen import DatagenSource
from raystream.connectors.files import FileSink
from raystream.testing import TestSource
from tests.held_source import HeldSource
from tests.published import records
from tests.ray.conftest import PATIENCE_S, handle_of, wait_until
from tests.ray.test_exactly_once import Kill, KillingSink, Moment
from tests.simulation.connected_jobs import FACTORS, RULES, Scale
from tests.simulation.jobs import key_of, number

COUNT = 3_000


def test_rules_and_what_waits_for_them_outlive_a_killed_slot(environment, tmp_path, go):
    env = environment(2)
    source = HeldSource(DatagenSource(number, count=COUNT), go, records=4)
    numbers = env.from_source(source, uid="numbers").key_by(key_of)
    rules = env.from_source(TestSource(RULES[:6], RULES[6:]), uid="rules").broadcast(FACTORS)
    scaled = numbers.connect(rules).process(Scale(), uid="scale")
    kills = {1: Kill(0, 100, Moment.PUBLISHED), 2: Kill(1, 300, Moment.PENDING)}
    scaled.sink_to(KillingSink(FileSink.json_lines(tmp_path / "out"), kills), uid="sink")

    client = env.submit("rules")
    wait_until(handle_of(client.job_id), lambda view: view.restarts == 2)
    go.touch()
    result = client.wait(PATIENCE_S)

    assert (result.status, result.restarts) == (JobStatus.FINISHED, 2)
    totals, factors = Counter(map(key_of, map(number, range(COUNT)))), dict(RULES)
    expected = Counter(("hit", key, hit + 1) for key, total in totals.items() for hit in range(total))
    expected.update((key_of(number(n)), number(n) * factors[key_of(number(n))]) for n in range(COUNT))
    assert Counter(map(tuple, records(tmp_path / "out"))) == expected
