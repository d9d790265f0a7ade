"""Busy, back-pressured and idle time of the subtasks of a slot, with a clock that the test moves."""

from types import SimpleNamespace

from raystream.graph.physical import Edge, Partitioning
from raystream.runtime.task_times import TaskTimes
from raystream.runtime.turns import Turns
from raystream.testing.source_run import ManualClock


class Subtask:
    """As much of a subtask as its times are made of."""

    def __init__(self, number):
        self.vertex = SimpleNamespace(id=number)
        self.outputs = SimpleNamespace(has_room=True)
        self.has_work = False


class World:
    """A source that feeds a middle, which feeds an end, all in one slot; and one that feeds nothing."""

    def __init__(self):
        self.clock = ManualClock()
        self.source, self.middle, self.end, self.other = self.subtasks = [Subtask(n) for n in range(4)]
        edges = tuple(
            Edge(position=n, source=n, source_operator=0, tag=None, target=n + 1,
                 partitioning=Partitioning.FORWARD, key_selector=None, first_channel=n)
            for n in range(2)
        )  # fmt: skip
        plan = SimpleNamespace(vertices=[s.vertex for s in self.subtasks], edges=edges)
        self.times = TaskTimes(self.clock, plan, self.subtasks)

    def round(self, *ran, before_ms=0):
        """A round: nothing for a time, then subtasks, each for its own."""
        self.clock.now_ms += before_ms
        self.times.begin()
        for subtask, ms in ran:
            self.clock.now_ms += ms
            self.times.ran(subtask)
        self.times.end()

    def of(self, subtask):
        time = self.times.of(subtask)
        return time.busy_ms, time.back_pressured_ms


def test_time_is_that_of_the_subtask_that_ran():
    world = World()
    world.round((world.end, 5), (world.source, 20))
    world.round((world.source, 10), before_ms=100)

    assert world.of(world.source) == (30, 0)
    assert world.of(world.end) == (5, 0)
    assert world.of(world.middle) == (0, 0)


def test_subtask_without_room_is_back_pressured_from_then_on_whatever_else_the_slot_does():
    world = World()
    world.source.outputs.has_room = False
    world.round((world.source, 10))
    world.round((world.other, 30), before_ms=100)
    world.source.outputs.has_room = True
    world.round(before_ms=7)
    world.round((world.other, 30), before_ms=1_000)

    assert world.of(world.source) == (10, 137)
    assert world.of(world.other) == (60, 0)


def test_subtask_with_something_to_do_is_held_up_by_what_it_feeds_in_its_slot():
    world = World()
    world.source.has_work = True
    world.round((world.source, 1))
    world.round((world.end, 50), (world.middle, 40), (world.other, 30), (world.source, 1))

    assert world.of(world.source) == (2, 90), "not by what another source feeds"
    assert world.of(world.middle) == (40, 0), "it had nothing to do"


class Source(Subtask):
    """A source whose polls take some time, and find something or not."""

    source = object()
    index = 0
    can_poll = True
    can_run_woken = False

    def __init__(self, number, clock, ms, *, found):
        super().__init__(number)
        self.vertex.name = f"source {number}"
        self._clock, self._ms, self._found = clock, ms, found

    def poll_source(self):
        self._clock.now_ms += self._ms
        return self._found


def test_time_of_a_poll_that_finds_nothing_is_that_of_its_source():
    clock = ManualClock()
    empty, full = sources = [Source(0, clock, 30, found=False), Source(1, clock, 5, found=True)]
    times = TaskTimes(clock, SimpleNamespace(vertices=[one.vertex for one in sources], edges=()), sources)
    turns = Turns(clock, sources, times, bounded=False)

    assert turns.run()
    assert (times.of(empty).busy_ms, times.of(full).busy_ms) == (30, 5)


def test_source_that_waits_for_its_next_record_is_idle_while_the_slot_works():
    world = World()
    world.source.has_work = False
    world.round((world.source, 1))
    world.round((world.end, 50))

    assert world.of(world.source) == (1, 0)
