"""A function with operator state finds it again, dealt out as its kind says."""

import pytest

from raystream import (
    CheckpointedFunction,
    FilterFunction,
    FlatMapFunction,
    KeyedProcessFunction,
    ListStateDescriptor,
    MapFunction,
    MapStateDescriptor,
    ProcessFunction,
    ReduceFunction,
    StateRestoreError,
    UserCodeError,
    ValueStateDescriptor,
)
from raystream.testing import OperatorHarness


class Buffer(CheckpointedFunction):
    """Keeps every record of its subtask; mixed into each kind of function."""

    def initialize_state(self, ctx):
        self.split = ctx.get_list_state(ListStateDescriptor("split", str))
        self.all = ctx.get_union_list_state(ListStateDescriptor("all", str))
        self.copy = ctx.get_broadcast_state(MapStateDescriptor("copy", str, int))
        self.raw = ctx.get_raw_state("raw")
        self.buffer = self.split.get()
        self.restored = ctx.is_restored
        self.place = (ctx.subtask_index, ctx.parallelism)

    def snapshot_state(self, ctx):
        self.split.update(self.buffer)
        self.all.update(self.buffer)
        self.raw.update([text.encode() for text in self.buffer])
        self.copy.put("checkpoint", ctx.checkpoint_id)
        self.copy.put("savepoint", int(ctx.savepoint))

    def keep(self, value):
        if value == "show":
            return self.shown()
        self.buffer.append(value)
        return ()

    def shown(self):
        return [
            (
                self.place[0],
                "".join(self.split.get()),
                "".join(self.all.get()),
                b"".join(self.raw.get()).decode(),
                self.restored,
                dict(self.copy.items()),
            )
        ]


class Process(ProcessFunction, Buffer):
    def process_element(self, value, ctx):
        return self.keep(value)


class FlatMap(FlatMapFunction, Buffer):
    def flat_map(self, value):
        return self.keep(value)


def shown(harness):
    """Return what each subtask holds, by its index."""
    return sorted(harness.process(["show"])[0] for _ in range(harness.parallelism))


@pytest.mark.parametrize("function", [Process, FlatMap])
def test_each_kind_of_state_is_dealt_out_as_it_should(function):
    with OperatorHarness(function(), parallelism=2) as harness:
        for value in "ABCD":  # Batches are dealt out in turn.
            harness.process([value])
        snapshot = harness.snapshot()
        copy = {"checkpoint": 1, "savepoint": 0}

        harness.restore(snapshot)
        assert shown(harness) == [
            (0, "AC", "ACBD", "AC", True, copy),
            (1, "BD", "ACBD", "BD", True, copy),
        ]
        harness.restore(snapshot, parallelism=3)
        assert shown(harness) == [
            # Names are dealt out in alphabetic order; `split` begins behind the extra one of `raw`.
            (0, "D", "ACBD", "AC", True, copy),
            (1, "AC", "ACBD", "B", True, copy),
            (2, "B", "ACBD", "D", True, copy),
        ]
        harness.restore(snapshot, parallelism=1)
        assert shown(harness) == [(0, "ACBD", "ACBD", "ACBD", True, copy)]


def test_function_that_starts_anew_is_not_restored():
    with OperatorHarness(Process()) as harness:
        assert shown(harness) == [(0, "", "", "", False, {})]


def test_subtask_that_gets_no_element_is_restored_all_the_same():
    with OperatorHarness(Process()) as harness:
        harness.restore(harness.snapshot(), parallelism=2)

        assert [row[4] for row in shown(harness)] == [True, True]


class Adds(MapFunction, Buffer):
    def map(self, value):
        self.buffer.append(value)
        return len(self.buffer)


class Odd(FilterFunction, Buffer):
    def filter(self, value):
        self.buffer.append(value)
        return len(self.buffer) % 2 == 1


class Joined(ReduceFunction, Buffer):
    def reduce(self, first, second):
        self.buffer.append(second)
        return f"{first}{second}{len(self.buffer)}"


class Counts(KeyedProcessFunction, Buffer):
    def open(self, ctx):
        self.seen = ctx.get_state(ValueStateDescriptor("split", int, default=len(self.buffer)))

    def process_element(self, value, ctx):
        self.seen.update(self.seen.value() + 1)
        self.buffer.append(value)
        yield self.seen.value(), len(self.buffer)


@pytest.mark.parametrize(
    ("function", "key", "expected"),
    [
        (Adds(), None, [1, 2, 3, 4]),
        (Adds(), str.lower, [1, 2, 3, 4]),
        (Odd(), None, ["a", "A"]),
        (Odd(), str.lower, ["a", "A"]),
        (Joined(), str.lower, ["a", "b", "aA1", "bB2"]),
        (Counts(), str.lower, [(1, 1), (2, 2), (2, 3), (3, 4)]),
    ],
)
def test_every_kind_of_function_may_keep_operator_state(function, key, expected):
    """Also beside keyed state, of the same name even; `initialize_state` comes before `open`."""
    with OperatorHarness(function, key=key) as harness:
        for value in ["a", "b", "A", "B"]:
            harness.process([value])
            harness.restore(harness.snapshot())

        assert harness.outputs == expected


class Renamed(Process):
    def initialize_state(self, ctx):
        self.split = ctx.get_list_state(ListStateDescriptor("other", str))
        self.all = ctx.get_union_list_state(ListStateDescriptor("all", int))
        self.copy = ctx.get_broadcast_state(MapStateDescriptor("copy", str, int))
        self.raw = ctx.get_raw_state("raw")


def test_all_state_that_does_not_fit_is_named_at_once():
    with OperatorHarness(Process()) as harness:
        harness.process(["a"])
        snapshot = harness.snapshot()
    with OperatorHarness(Renamed()) as other, pytest.raises(StateRestoreError) as refused:
        other.restore(snapshot)

    lines = [" ".join(line.split()) for line in str(refused.value).splitlines()]
    assert any(line.startswith("missing operator-under-test Renamed split 1") for line in lines)
    assert any(line.startswith("different operator-under-test Renamed all") for line in lines)
    assert any(line.endswith("schema was 'str', is 'int'") for line in lines)


class Broken(Process):
    def __init__(self, method):
        self.method = method

    def initialize_state(self, ctx):
        super().initialize_state(ctx)
        if self.method == "initialize_state":
            raise ValueError("not today")

    def snapshot_state(self, ctx):
        if self.method == "snapshot_state":
            raise ValueError("not today")


def test_error_of_the_functions_own_methods_names_operator_and_cause():
    with pytest.raises(UserCodeError, match="failed to initialize its state") as raised:
        OperatorHarness(Broken("initialize_state"))
    assert raised.value.context["cause"] == "ValueError: not today"

    with (
        OperatorHarness(Broken("snapshot_state")) as harness,
        pytest.raises(UserCodeError, match="failed to snapshot its state") as raised,
    ):
        harness.snapshot()
    assert raised.value.context["operator"] == "Broken"
