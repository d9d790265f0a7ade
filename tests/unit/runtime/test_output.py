"""Edges: each record finds the subtask that it belongs to."""

import random

import pytest

from raystream.errors import UserCodeError
from raystream.keygroup import routing_table, subtask_of_group
from raystream.keys import stable_hash
from raystream.operators.operator import Operator
from raystream.records.batch import RowBatch
from raystream.records.elements import EndOfInput
from raystream.runtime.channel import LocalOutput, RemoteOutput
from raystream.runtime.frame import FrameKind
from raystream.runtime.output import (
    BroadcastWriter,
    CustomWriter,
    ForwardWriter,
    HashWriter,
    Outputs,
    RebalanceWriter,
    ShuffleWriter,
)
from tests.unit.operators.running import Run

WINDOW_BYTES = 30_000


class Channel:
    """Keeps what is sent."""

    def __init__(self):
        self.batches = []
        self.controls = []
        self.backlog = None

    def send(self, batch):
        self.batches.append(batch)

    def send_control(self, control):
        self.controls.append(control)

    @property
    def values(self):
        return [value for batch in self.batches for value in batch.values]


def channels(count):
    return [Channel() for _ in range(count)]


def hash_writer(outputs, selector, max_parallelism=128):
    return HashWriter(
        outputs,
        key_selector=selector,
        routing=routing_table(max_parallelism, len(outputs)),
        context=Run(Operator()).context,
    )


# ---- forward and rebalance --------------------------------------------------


def test_forward_edge_has_one_channel():
    (channel,) = channels(1)
    batch = RowBatch([1])
    ForwardWriter([channel]).write(batch)

    assert channel.batches == [batch]


def test_rebalance_deals_batches_out_in_turn_from_its_own_beginning():
    outputs = channels(3)
    writer = RebalanceWriter(outputs, first=4)
    for n in range(6):
        writer.write(RowBatch([n]))

    assert [channel.values for channel in outputs] == [[2, 5], [0, 3], [1, 4]]


# ---- hash -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("max_parallelism", "parallelism"), [(128, 1), (128, 3), (13, 4), (7, 7), (32768, 5)]
)
def test_every_record_goes_to_the_owner_of_its_key_group(max_parallelism, parallelism):
    rng = random.Random(1)
    outputs = channels(parallelism)
    writer = hash_writer(outputs, lambda value: value[0], max_parallelism)
    sent = [(rng.choice("abcdefghij"), n) for n in range(3000)]
    stamps = list(range(3000))
    for start in range(0, 3000, 100):
        writer.write(RowBatch(sent[start : start + 100], stamps[start : start + 100]))

    for subtask, channel in enumerate(outputs):
        for batch in channel.batches:
            assert batch.keys == [key for key, _ in batch.values]
            assert batch.groups == [stable_hash(key) % max_parallelism for key in batch.keys]
            assert {subtask_of_group(g, max_parallelism, parallelism) for g in batch.groups} == {subtask}
            assert batch.timestamps == [n for _, n in batch.values]
    assert sorted(value for channel in outputs for value in channel.values) == sorted(sent)


def test_records_of_one_key_keep_their_order():
    outputs = channels(4)
    writer = hash_writer(outputs, lambda value: value % 10)
    for start in range(0, 1000, 7):
        writer.write(RowBatch(list(range(start, min(start + 7, 1000)))))

    for channel in outputs:
        for key in range(10):
            mine = [value for value in channel.values if value % 10 == key]
            assert mine == sorted(mine)


def test_subtask_without_records_gets_no_batch():
    outputs = channels(8)
    hash_writer(outputs, lambda value: "always")
    hash_writer(outputs, lambda value: "always").write(RowBatch([1, 2, 3]))

    assert sorted(len(channel.batches) for channel in outputs) == [0] * 7 + [1]


def test_keys_are_canonical():
    (channel,) = channels(1)
    hash_writer([channel], lambda value: value).write(RowBatch([True, 1.0, 1]))

    (batch,) = channel.batches
    assert [type(key) for key in batch.keys] == [int, int, int]
    assert batch.values[0] is True


@pytest.mark.parametrize("count", [1, 3])
def test_key_that_cannot_be_encoded_names_operator_and_record(count):
    writer = hash_writer(channels(count), lambda value: value["key"])
    records = [{"key": "fine"}, {"key": ["a", "list"]}, {"key": {}}]

    with pytest.raises(UserCodeError, match="key of type list") as raised:
        writer.write(RowBatch(records))

    assert raised.value.context["operator"] == "the operator"
    assert raised.value.context["subtask"] == 3
    assert raised.value.context["record"] == repr(records[1])
    assert raised.value.hint


@pytest.mark.parametrize("count", [1, 3])
def test_key_selector_that_raises_names_operator_and_record(count):
    writer = hash_writer(channels(count), lambda value: value["key"])

    with pytest.raises(UserCodeError, match="KeyError") as raised:
        writer.write(RowBatch([{"key": 1}, {"other": 2}, {"key": 3}]))

    assert raised.value.context["record"] == "{'other': 2}"
    assert raised.value.context["operator"] == "the operator"


def test_key_selector_that_stops_an_iteration_loses_no_record():
    writer = hash_writer(channels(1), lambda value: next(iter(value)))

    with pytest.raises(UserCodeError, match="StopIteration") as raised:
        writer.write(RowBatch(["a", "", "b"]))

    assert raised.value.context["record"] == "''"


# ---- all edges of a subtask -------------------------------------------------


def test_subtask_without_outputs_always_has_room():
    assert Outputs([]).has_room
    assert not Outputs([]).flush()


def test_control_elements_go_through_every_channel():
    outputs = channels(3)
    Outputs([RebalanceWriter(outputs[:2], first=0), ForwardWriter(outputs[2:])]).broadcast(EndOfInput())

    assert [channel.controls for channel in outputs] == [[EndOfInput()]] * 3


class Receiver:
    """Takes what a channel hands over, and gives the credit back when the test wants it."""

    def __init__(self, kind):
        self.received = []
        self.unpaid = 0
        if kind == "local":
            self.output = LocalOutput(WINDOW_BYTES)
            self.output.attach(self)
        else:
            self.output = RemoteOutput(WINDOW_BYTES, self.frame, "numbers")

    def put(self, element, size_bytes):
        self.received.append(element)
        self.unpaid += size_bytes

    def frame(self, kind, payload):
        self.put(payload, len(payload) if kind is FrameKind.BATCH else 0)

    def pay(self):
        unpaid, self.unpaid = self.unpaid, 0
        if unpaid:
            self.output.granted(unpaid)


@pytest.mark.parametrize("kind", ["local", "remote"])
def test_subtask_has_room_only_while_every_channel_has(kind):
    ends = [Receiver(kind) for _ in range(3)]
    outputs = [end.output for end in ends]
    all_edges = Outputs([RebalanceWriter(outputs[:2], first=0), ForwardWriter(outputs[2:])])
    assert all_edges.has_room

    for output in outputs[1:]:
        for _ in range(3):
            output.send(RowBatch(["x" * WINDOW_BYTES]))
            output.flush()
    assert not all_edges.has_room
    for end, room in zip(ends[1:], (False, True), strict=True):
        while not end.output.has_room:
            end.pay()
        assert all_edges.has_room is room


def test_flush_sends_what_channels_hold_back_and_looks_at_no_other():
    ends = [Receiver(kind) for kind in ("remote", "local", "remote")]
    outputs = [end.output for end in ends]
    all_edges = Outputs([RebalanceWriter(outputs, first=0)])
    assert not all_edges.flush()

    for value in ("a", "b"):
        outputs[2].send(RowBatch([value]))
    assert ends[2].received == []
    assert all_edges.flush()
    assert [len(end.received) for end in ends] == [0, 0, 1]
    assert not all_edges.flush()
    outputs[2].send(RowBatch(["c"]))
    assert all_edges.flush()
    assert len(ends[2].received) == 2


@pytest.mark.parametrize("seed", range(30))
def test_what_a_subtask_knows_of_its_channels_is_true_of_each(seed):
    rng = random.Random(seed)
    ends = [Receiver(kind) for kind in rng.choices(["local", "remote"], k=5)]
    outputs = [end.output for end in ends]
    all_edges = Outputs([RebalanceWriter(outputs, first=0)])
    for _ in range(300):
        end = rng.choice(ends)
        match rng.randrange(5):
            case 0 | 1:
                end.output.send(RowBatch(["x" * rng.choice((1, WINDOW_BYTES // 3))] * rng.choice((1, 600))))
            case 2:
                end.pay()
            case 3:
                end.output.send_control(EndOfInput())
            case _:
                all_edges.flush()
                assert not any(output.flush() for output in outputs)
        assert all_edges.has_room is all(output.has_room for output in outputs)


# ---- broadcast, shuffle, custom ----------------------------------------------


def test_broadcast_sends_every_batch_through_every_channel():
    outputs = channels(3)
    BroadcastWriter(outputs).write(RowBatch([1, 2]))

    assert [channel.values for channel in outputs] == [[1, 2]] * 3


def test_shuffle_sends_each_record_through_one_channel_the_same_for_the_same_seed():
    def shuffled():
        outputs = channels(3)
        writer = ShuffleWriter(outputs, random.Random(7))
        for start in range(0, 300, 50):
            writer.write(RowBatch(list(range(start, start + 50)), list(range(start, start + 50))))
        return outputs

    outputs = shuffled()

    assert sorted(value for channel in outputs for value in channel.values) == list(range(300))
    assert all(len(channel.values) > 60 for channel in outputs)
    assert all(batch.timestamps == batch.values for channel in outputs for batch in channel.batches)
    assert [channel.values for channel in shuffled()] == [channel.values for channel in outputs]


def test_custom_partitioner_says_the_channel_of_each_record():
    outputs = channels(3)
    CustomWriter(outputs, lambda value, count: value % count, Run(Operator()).context).write(
        RowBatch([0, 1, 3, 4, 5])
    )

    assert [channel.values for channel in outputs] == [[0, 3], [1, 4], [5]]


@pytest.mark.parametrize("target", [-1, 3, "first", None])
def test_custom_partitioner_that_names_no_subtask_is_refused_with_the_record(target):
    writer = CustomWriter(channels(3), lambda _, __: target, Run(Operator()).context)

    with pytest.raises(UserCodeError, match="user function raised") as raised:
        writer.write(RowBatch(["record"]))

    assert raised.value.context["record"] == "'record'"
