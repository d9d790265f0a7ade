"""A job that counts keys which come in rounds, and keeps enough for each that its state has files."""

from dataclasses import dataclass
from typing import Any

from raystream import KeyedProcessFunction, ValueStateDescriptor
from raystream.testing import Barrier, TestSource
from tests.published import one_to_n


class Count(KeyedProcessFunction):
    """Emits each key with how often it has come, and keeps a kibibyte for it."""

    def open(self, ctx):
        self.seen = ctx.get_state(ValueStateDescriptor("seen", int, default=0))
        self.text = ctx.get_state(ValueStateDescriptor("text", str))

    def process_element(self, value, ctx):
        self.seen.update(self.seen.value() + 1)
        self.text.update(str(value).zfill(1024))
        yield value, self.seen.value()


@dataclass(frozen=True)
class Rounds:
    """What is counted: each key once in every round, dealt out to some lists."""

    keys: int
    rounds: int
    lists: int

    def source(self, *between: Any) -> TestSource:
        """Return the lists; a barrier comes before each round, and `between[n]`, if any, before round n."""
        lists = []
        for first in range(self.lists):
            script = []
            for number in range(self.rounds):
                script += [item for item in between[number : number + 1] if item is not None]
                script += [Barrier(), *range(first, self.keys, self.lists)]
            lists.append(script)
        return TestSource(*lists)

    @property
    def exact(self) -> dict[int, list[int]]:
        """What counting each exactly once publishes."""
        return one_to_n(list(range(self.keys)) * self.rounds)
