"""What a slot logs: which operator it is about, and nothing alarming where only a peer has gone."""

import logging

import pytest

from raystream import MapFunction
from raystream.runtime import log_place
from raystream.runtime import messages as msg
from raystream.testing import TestSource
from tests.unit.runtime.slot_world import VisibleSink, World, program, word_count

TestSource.__test__ = False


class Logging(MapFunction):
    """Logs when it opens, and for each record."""

    def open(self, ctx):
        logging.getLogger("job").info("open")

    def map(self, value):
        logging.getLogger("job").info("map")
        if value == "bad":
            raise ValueError(value)
        return value


@pytest.fixture
def lines(caplog):
    """Message and place of each record, as a handler of the process finds them."""
    found = []

    class Places(logging.Filter):
        def filter(self, record):
            found.append((record.getMessage(), *log_place.current()[1:]))
            return True

    caplog.handler.addFilter(places := Places())
    with caplog.at_level(logging.INFO):
        yield found
    caplog.handler.removeFilter(places)


def build(env):
    words = env.from_source(TestSource(["fine"], ["bad"]), name="words", uid="words")
    logged = words.rebalance().map(Logging(), name="logs", uid="logs")
    logged.map(str, name="text", uid="text").sink_to(VisibleSink(), name="out", uid="out")


def test_records_of_user_code_are_those_of_its_operator_and_subtask_and_attempt(lines):
    World(program(build)).begin()

    opened = [line for line in lines if line[0] == "open"]
    assert opened == [("open", "logs", "0", "1"), ("open", "logs", "1", "1")]
    chain = "logs -> text -> out"
    mapped = [line for line in lines if line[0] == "map"]
    assert len(mapped) == 2
    assert {line[1:] for line in mapped} <= {(chain, "0", "1"), (chain, "1", "1")}
    (failed,) = [line for line in lines if line[0] == "attempt failed in this slot"]
    assert failed[1] == chain, "the slot's own words about it, too"
    assert log_place.here.at == log_place.NOWHERE


def test_slot_that_lost_only_its_peer_says_so_without_a_traceback(caplog):
    world = World(word_count(TestSource(["ape", "bear", "cat", "dog", "elk", "fox"], [])))
    world.deploy()
    world.connect()
    world.links[1].close()
    with caplog.at_level(logging.INFO, logger="raystream"):
        world.tell(msg.Start(attempt=1), slots=[0])
        world.settle(slots=[0])

    (told,) = [record for record in caplog.records if record.message == "peer of this slot is gone"]
    assert told.levelno == logging.INFO
    assert not any(record.exc_info for record in caplog.records)
