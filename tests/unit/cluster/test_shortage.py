"""What slots wait for is said after a while."""

from raystream.cluster import shortage
from raystream.cluster.incarnation import Incarnation
from raystream.cluster.resources import Node, SlotNeeds
from raystream.cluster.shortage import WAIT_SHOWN_AFTER_MS, Shortage
from raystream.testing.source_run import ManualClock

ONE = SlotNeeds(group="default", amounts={"CPU": 1.0})


class Waiting:
    """Two slots, of which one waits for a CPU; every look is answered at once."""

    def __init__(self, monkeypatch):
        self.missing, self.placed = [Incarnation(slot=1, incarnation=2)], frozenset()
        self.clock = ManualClock()
        monkeypatch.setattr(shortage, "cluster_nodes", lambda: [Node(total={"CPU": 1.0}, free={"CPU": 0.0})])
        self.shortage = Shortage(
            lambda slot: ONE, lambda: (self.missing, [0, 1]), lambda: self.placed, clock=self.clock,
            background=self, changed=lambda: None,
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
    assert (waiting.shortage.text, waiting.shortage.look_ms) == ("", None)


def test_nobody_looks_on_when_nothing_is_missing_any_more(monkeypatch):
    waiting = Waiting(monkeypatch)
    waiting.shortage.begin()
    waiting.after(WAIT_SHOWN_AFTER_MS)
    waiting.missing = []

    assert waiting.after(WAIT_SHOWN_AFTER_MS) == ""
    assert waiting.shortage.look_ms is None


def test_process_that_has_a_place_lacks_nothing_though_nothing_is_free(monkeypatch):
    waiting = Waiting(monkeypatch)
    waiting.placed = frozenset({2})
    waiting.shortage.begin()

    assert waiting.after(WAIT_SHOWN_AFTER_MS) == "1 of 2 slots: their processes are starting"
