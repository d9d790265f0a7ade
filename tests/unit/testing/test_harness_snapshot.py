"""What a snapshot of the harness refuses."""

import pytest

from raystream import KeyedProcessFunction, ValueStateDescriptor
from raystream.errors import StateError
from raystream.testing.harness import OperatorHarness


class Unwritable:
    def __reduce__(self):
        raise StopIteration


def test_state_that_raises_stop_iteration_when_it_is_encoded_is_not_left_out():
    class Keep(KeyedProcessFunction):
        def open(self, ctx):
            self.kept = ctx.get_state(ValueStateDescriptor("kept"))

        def process_element(self, value, ctx):
            self.kept.update(Unwritable() if value == 2 else value)

    with OperatorHarness(Keep(), key=lambda value: value) as harness:
        harness.process([1, 2, 3])
        with pytest.raises(StateError, match="cannot be encoded"):
            harness.snapshot()
