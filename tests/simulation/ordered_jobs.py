"""A job that sees whether records of one key keep their order on their way through its exchanges."""

from typing import Any

from raystream import (
    CheckpointedFunction,
    FlatMapFunction,
    KeyedProcessFunction,
    ValueStateDescriptor,
)
from raystream.testing import TestSource

COUNT = 240
KEYS = 5
RECORD_BYTES = 32_000
PAYLOAD = bytes(RECORD_BYTES)
"""So that outputs run out of credit, and records wait in all places where a barrier can overtake them."""


def key_of(record) -> int:
    return record[0] % KEYS


class Pass(KeyedProcessFunction):
    """Hands every record on, with whether it is the next one of its key."""

    def open(self, ctx):
        self.last = ctx.get_state(ValueStateDescriptor("last", int))

    def process_element(self, record, ctx):
        last = self.last.value()
        expected = record[0] % KEYS if last is None else last + KEYS
        self.last.update(record[0])
        yield record[0], *record[1:-1], record[0] == expected, PAYLOAD


class Judge(FlatMapFunction, CheckpointedFunction):
    """Says of every record whether it is the next one of its key; of all keys in one subtask."""

    def initialize_state(self, ctx):
        self.stored = ctx.get_raw_state("last")
        self.last = dict(tuple(map(int, element.split())) for element in self.stored.get())

    def snapshot_state(self, ctx):
        self.stored.update([f"{key} {last}".encode() for key, last in self.last.items()])

    def flat_map(self, record):
        key = record[0] % KEYS
        expected = key if key not in self.last else self.last[key] + KEYS
        self.last[key] = record[0]
        yield record[0], *record[1:-1], record[0] == expected


def ordered(env):
    source = TestSource([(n, PAYLOAD) for n in range(COUNT)])
    stream = env.from_source(source, name="one by one", uid="one-by-one")
    first = stream.key_by(key_of).process(Pass(), name="first", uid="first")
    second = first.key_by(key_of).process(Pass(), name="second", uid="second")
    return second.flat_map(Judge(), name="judge", uid="judge", parallelism=1)


def expected_ordered() -> list[Any]:
    return [(n, True, True, True) for n in range(COUNT)]
