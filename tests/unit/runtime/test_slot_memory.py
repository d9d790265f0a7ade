"""Nothing of an attempt stays in memory when its slot has dropped it, whatever became of it."""

import gc
import logging
import weakref

import pytest

from raystream import KeyedProcessFunction, ValueStateDescriptor
from raystream.runtime import messages as msg
from raystream.testing import Barrier, TestSource
from tests.unit.runtime.slot_world import VisibleSink, World, first_letter, program, word_count

WORDS = ["ape", "bee", "cow"] * 50


@pytest.fixture(autouse=True)
def _no_collector():
    """Let reference counts do it alone: a worker collects cycles rarely."""
    VisibleSink.visible.clear()
    gc.collect()
    gc.disable()
    logging.disable()  # What the tests' own handlers keep of an error is not ours to free.
    yield
    logging.disable(logging.NOTSET)
    gc.enable()


def remains(slot):
    """Return weak references to what the slot's attempt holds."""
    attempt = slot._attempt
    operators = [operator for subtask in attempt.subtasks for operator in subtask.operators]
    backends = [operator.context.keyed_backend for operator in operators]
    held = [attempt, *attempt.subtasks, *operators, *[backend for backend in backends if backend is not None]]
    assert len(held) > 4
    return [weakref.ref(one) for one in held]


def alive(references):
    return [reference() for reference in references if reference() is not None]


@pytest.mark.parametrize("slots", [1, 2])
def test_stopped_attempt_is_gone(slots):
    source = TestSource(*[[*WORDS, Barrier(), *WORDS]] * slots)
    world = World(word_count(source, parallelism=slots), slots=slots)
    world.begin()
    world.trigger(1)
    references = [reference for slot in world.slots for reference in remains(slot)]

    world.send(msg.StopAttempt)

    assert alive(references) == []


def test_attempt_stopped_during_a_snapshot_is_gone_when_its_upload_ends():
    world = World(word_count(TestSource([*WORDS, Barrier(), *WORDS]), parallelism=1), slots=1)
    world.begin()
    world.backgrounds[0].held = True
    world.trigger(1)
    references = remains(world.slots[0])

    world.send(msg.StopAttempt)
    world.backgrounds[0].held = False
    world.settle()

    assert alive(references) == []


class Circular(KeyedProcessFunction):
    def open(self, ctx):
        self.seen = ctx.get_state(ValueStateDescriptor("seen", int, default=0))
        self.itself = self

    def process_element(self, value, ctx):
        self.seen.update(1)


def circular(env):
    words = env.from_source(TestSource(WORDS), uid="words")
    words.key_by(first_letter).process(Circular(), uid="circular").sink_to(VisibleSink(), uid="out")


def test_attempt_whose_functions_hold_themselves_is_gone_where_cycles_are_reclaimed():
    world = World(program(circular, parallelism=1), slots=1, reclaim=gc.collect)
    world.begin()
    references = remains(world.slots[0])

    world.send(msg.StopAttempt)

    assert alive(references) == []


class Failing(KeyedProcessFunction):
    def open(self, ctx):
        self.seen = ctx.get_state(ValueStateDescriptor("seen", int, default=0))

    def process_element(self, value, ctx):
        self.seen.update(self.seen.value() + 1)
        try:
            raise ValueError(value)
        except ValueError as error:
            self.last = error  # A cycle through the frames of the error.
            raise


def failing(env):
    words = env.from_source(TestSource(WORDS), uid="words")
    words.key_by(first_letter).process(Failing(), uid="fail").sink_to(VisibleSink(), uid="out")


def test_failed_attempt_is_gone_though_its_error_is_kept():
    world = World(program(failing, parallelism=1), slots=1)
    world.deploy()
    world.connect()
    references = remains(world.slots[0])
    world.send(msg.Start)
    kept = world.failure().error

    world.send(msg.StopAttempt)

    assert alive(references) == []
    assert kept.context["operator"]
