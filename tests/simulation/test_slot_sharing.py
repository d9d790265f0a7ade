"""Whatever goes wrong, a job of two slot-sharing groups has each record exactly once, at any parallelism."""

import pytest

from raystream import SlotSharingGroup
from raystream.testing import simulate
from raystream.testing.faults import Rescale, RestartCrash, SlotKill
from tests.simulation import jobs

pytestmark = pytest.mark.simulation

DECODE = SlotSharingGroup("decode", cpus=2)


def same(value: int) -> int:
    return value


def grouped(env):
    """Forward from one group into the other, where both have slots of the same subtasks, and by key back."""
    decoded = jobs.numbers(env).map(same, name="decode", uid="decode", slot_sharing_group=DECODE)
    return decoded.key_by(jobs.key_of).process(
        jobs.Remember(), name="remember", uid="remember", slot_sharing_group="default"
    )


def test_two_groups_are_exactly_once_whatever_goes_wrong(seeds):
    simulate(grouped, seeds=seeds[: len(seeds) // 10], expected=jobs.expected_keyed()).check()


@pytest.mark.parametrize("crash", [[], [SlotKill(at_ms=100, slot=3)], [RestartCrash(attempt=2, moment=5)]])
def test_two_groups_are_rescaled_up_and_down(crash):
    faults = [Rescale(at_ms=60, parallelism=3), Rescale(at_ms=160, parallelism=1), *crash]

    simulate(grouped, seeds=[1], faults=faults, expected=jobs.expected_keyed()).check()
