"""A record that changes after it was emitted is found, in the harness and by `check_operator`."""

import threading

import pytest

from raystream import KeyedProcessFunction, ProcessFunction, ValueStateDescriptor
from raystream.testing.check import check_operator
from raystream.testing.harness import OperatorHarness


class Cleared(ProcessFunction):
    """Emits a buffer and clears it."""

    def open(self, ctx):
        self.buffer = []

    def process_element(self, value, ctx):
        self.buffer.append(value)
        yield self.buffer
        self.buffer.clear()


class KeptInState(KeyedProcessFunction):
    """Emits the list in state, which the next record of the key changes."""

    def open(self, ctx):
        self.seen = ctx.get_state(ValueStateDescriptor("seen"))

    def process_element(self, value, ctx):
        seen = self.seen.value() or []
        seen.append(value)
        self.seen.update(seen)
        yield ctx.current_key, seen


class ClearedAside(Cleared):
    def process_element(self, value, ctx):
        for record in super().process_element(value, ctx):
            ctx.output("side", record)


CHANGED_AFTERWARDS = [
    (Cleared(), None, [[1], [2]]),
    (KeptInState(), lambda value: "key", [("key", [1]), ("key", [1, 2])]),
]


@pytest.mark.parametrize(("function", "key", "expected"), [*CHANGED_AFTERWARDS, (ClearedAside(), None, [])])
@pytest.mark.parametrize("batches", [[[1, 2]], [[1], [2]]])
def test_record_that_is_changed_after_it_was_emitted_is_found(function, key, expected, batches):
    def outputs(*, copy_records):
        with OperatorHarness(function, key=key, copy_records=copy_records) as harness:
            for batch in batches:
                harness.process(batch)
            return harness.outputs

    with pytest.raises(AssertionError, match="changed a record after it had emitted it"):
        outputs(copy_records=False)
    assert outputs(copy_records=True) == expected


@pytest.mark.parametrize(("function", "key", "expected"), CHANGED_AFTERWARDS)
def test_check_finds_a_record_that_is_changed_after_it_was_emitted(function, key, expected):
    with pytest.raises(AssertionError, match="changed a record after it had emitted it"):
        check_operator(function, [1, 2], expected, key=key)


def test_record_that_cannot_be_compared_or_copied_is_let_through():
    with OperatorHarness(lambda value: (value, threading.Lock(), object())) as harness:
        assert [record[0] for record in harness.process([1, 2])] == [1, 2]
