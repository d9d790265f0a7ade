"""Two slots in one process, over a real connection: what one channel does is no concern of another."""

from typing import ClassVar

import pytest

from raystream import ProcessFunction
from raystream.connectors.basic import DiscardSink
from raystream.connectors.datagen import DatagenSource
from raystream.records.elements import SnapshotKind
from raystream.runtime import messages as msg
from raystream.runtime.gate import GATE_BUDGET_BYTES
from raystream.runtime.tcp import TcpLinks
from raystream.testing import Barrier, TestSource
from tests.unit.runtime.slot_world import World, program

STEPS_MAX = 20_000
RECORD_BYTES = 10_000
RECORDS = 3 * GATE_BUDGET_BYTES // RECORD_BYTES
"""Three times what may wait in all channels of a subtask together."""
NUMBERS = list(range(RECORDS))
BEFORE = -1
"""Number of the record that comes before the barrier."""


def record(number):
    return number, "x" * RECORD_BYTES


class Taken(ProcessFunction):
    """Remembers, in this process, what its subtask in each slot was given."""

    numbers: ClassVar[dict[tuple[str, int], list[int]]] = {}

    def __init__(self, name):
        self.name = name

    def open(self, ctx):
        self.mine = self.numbers.setdefault((self.name, ctx.subtask_index), [])

    def process_element(self, value, ctx):
        self.mine.append(value[0])


class SocketWorld(World):
    """Slots whose batches go through sockets; a step may have to wait for the kernel."""

    def __init__(self, job):
        super().__init__(job, links=lambda: TcpLinks("127.0.0.1", self.clock))

    def drive(self, until):
        for _ in range(STEPS_MAX):
            if until():
                return
            if not self.step():
                self.links[0].wait(1)
                self.clock.now_ms += 1  # What was held back to fill a batch is sent.
        raise AssertionError("it did not happen")

    def begin(self):
        self.deploy()
        self.drive(lambda: len(self.all(msg.SlotDeployed)) == 2)
        addresses = {deployed.slot: deployed.address for deployed in self.all(msg.SlotDeployed)}
        self.tell(msg.Connect(attempt=1, addresses=addresses))
        self.drive(lambda: len(self.all(msg.SlotReady)) == 2)
        self.tell(msg.Start(attempt=1))

    def send_barriers_from(self, slot):
        trigger = msg.TriggerCheckpoint(
            attempt=1, checkpoint_id=1, kind=SnapshotKind.CHECKPOINT, created_ms=0, directory=""
        )
        self.tell(trigger, slots=[slot])


@pytest.fixture
def world():
    """Slot 0 reads records for two operators of slot 1; both kinds come over one connection."""
    Taken.numbers.clear()

    def build(env):
        behind_barriers = [record(BEFORE), Barrier(), *map(record, NUMBERS)]
        aligning = TestSource(behind_barriers, behind_barriers)
        env.from_source(aligning).rebalance().process(Taken("aligning")).sink_to(DiscardSink())
        flowing = DatagenSource(record, count=RECORDS)
        env.from_source(flowing, parallelism=1).rebalance().process(Taken("flowing")).sink_to(DiscardSink())

    made = SocketWorld(program(build))
    yield made
    for links in made.links:
        links.dispose()


def taken(name):
    """Return what both subtasks were given, sorted."""
    return sorted(
        number for (operator, _), numbers in Taken.numbers.items() if operator == name for number in numbers
    )


def test_operator_that_takes_nothing_does_not_stop_another_on_the_same_connection(world):
    world.begin()
    world.drive(lambda: taken("aligning") == [BEFORE, BEFORE])
    world.send_barriers_from(0)  # Nothing behind them is taken until those of slot 1 have come too.
    world.drive(lambda: taken("flowing") == NUMBERS)

    assert taken("aligning") == [BEFORE, BEFORE]
    over_the_connection = Taken.numbers["flowing", 1]
    assert len(over_the_connection) * RECORD_BYTES > GATE_BUDGET_BYTES
    assert over_the_connection == sorted(over_the_connection)

    world.send_barriers_from(1)
    world.drive(lambda: taken("aligning") == sorted([BEFORE, BEFORE, *NUMBERS, *NUMBERS]))

    assert world.all(msg.SlotFailed) == []
