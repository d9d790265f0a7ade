"""What slots wait for is said after a while; a job that starts may have a limit for it."""

import pytest

from raystream.cluster import shortage
from raystream.cluster.incarnation import Incarnation
from raystream.cluster.resources import Node, SlotNeeds
from raystream.cluster.shortage import WAIT_SHOWN_AFTER_MS, Shortage
from raystream.errors import ConfigError
from raystream.testing.source_run import ManualClock

ONE = SlotNeeds(group="default", amounts={"CPU": 1.0})


class Waiting:
    """Two slots, of which one waits for a CPU; every look is answered at once."""

    def __init__(self, monkeypatch, limit_ms=None):
        self.missing, self.late, self.placed = [Incarnation(slot=1, incarnation=2)], [], frozenset()
        self.clock = ManualClock()
        monkeypatch.setattr(shortage, "cluster_nodes", lambda: [Node(total={"CPU": 1.0}, free={"CPU": 0.0})])
        self.shortage = Shortage(
            lambda slot: ONE, lambda: (self.missing, [0, 1]), lambda: self.placed, clock=self.clock,
            background=self, changed=lambda: None, limit_ms=limit_ms, late=self.late.append,
        )  # fmt: skip

    def submit(self, work, done):
        done(work())

    def after(self, ms):
        self.clock.now_ms += ms
        self.shortage.step()
        return self.shortage.text


def test_shortage_is_told_after_a_while_and_forgotten_when_it_is_over(monkeypatch):
    waiting = Waiting(monkeypatch)
    waiting.shortage.begin()

    assert waiting.after(WAIT_SHOWN_AFTER_MS - 1) == ""
    assert waiting.after(1).startswith("1 of 2 slots with 1 CPU each: the cluster has 1 CPU on 1 node")
    waiting.shortage.end()
    assert (waiting.shortage.text, waiting.shortage.next_deadline_ms) == ("", None)


def test_process_that_has_a_place_lacks_nothing_though_nothing_is_free(monkeypatch):
    waiting = Waiting(monkeypatch)
    waiting.placed = frozenset({2})
    waiting.shortage.begin()

    assert waiting.after(WAIT_SHOWN_AFTER_MS) == "1 of 2 slots: their processes are starting"


@pytest.mark.parametrize("limit_ms", [1_000, 60_000])
def test_job_that_starts_gives_up_at_its_limit_and_says_what_it_lacks(monkeypatch, limit_ms):
    waiting = Waiting(monkeypatch, limit_ms)
    waiting.shortage.begin()
    waiting.after(limit_ms / 2)
    waiting.shortage.begin()
    waiting.after(limit_ms / 2 - 1)
    assert waiting.late == []

    waiting.after(1)
    waiting.after(limit_ms)

    (error,) = waiting.late
    assert isinstance(error, ConfigError), "no restart would help"
    assert error.context["missing"].startswith("1 of 2 slots with 1 CPU each: the cluster has 1 CPU")


def test_job_that_has_had_its_slots_waits_for_others_as_long_as_it_takes(monkeypatch):
    waiting = Waiting(monkeypatch, 1_000)
    waiting.shortage.begin()
    waiting.shortage.end()

    waiting.shortage.begin()
    waiting.after(100_000)

    assert waiting.late == []
