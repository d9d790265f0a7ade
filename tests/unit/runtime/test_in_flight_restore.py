"""Records in flight are restored once each, where their key belongs now, in the order of their channel."""

from hypothesis import given, settings
from hypothesis import strategies as st

from raystream.handles import (
    ChannelSlice,
    ChannelStage,
    ChannelStateHandle,
    InlineHandle,
    OperatorSnapshot,
)
from raystream.ids import CheckpointId, JobId
from raystream.keygroup import routing_table
from raystream.keys import KeyGroupCache
from raystream.records.batch import RowBatch
from raystream.records.elements import SnapshotKind
from raystream.runtime.coordinator_restore import plan_restore
from raystream.runtime.restore import read_operator
from raystream.state.channel_state import encode_slice
from raystream.storage.blobs import SnapshotFiles
from raystream.storage.metadata import OperatorMetadata, SnapshotMetadata
from raystream.testing import TestSource
from tests.unit.runtime.slot_world import Count, VisibleSink, first_letter, program

KEYS = 6
SENDERS = 2
PLANS = {}


def plan_of(parallelism, max_parallelism):
    """Return the plan of a job with an operator behind `key_by`, and one behind `rebalance`."""

    def build(env):
        words = env.from_source(TestSource(["ape"]), uid="words")
        counted = words.key_by(first_letter).process(Count(), uid="keyed", max_parallelism=max_parallelism)
        counted.rebalance().map(str, uid="keyless").sink_to(VisibleSink(), uid="out")

    layout = parallelism, max_parallelism
    if layout not in PLANS:
        PLANS[layout] = program(build, parallelism=parallelism).plan
    return PLANS[layout]


def stored(plan, records, cuts):
    """Return a checkpoint with records in flight to both operators; a record is (key, sender, number)."""
    operators = []
    for vertex in plan.vertices:
        node = vertex.operators[0]
        if vertex.source is not None:
            continue
        routing = routing_table(vertex.max_parallelism, vertex.parallelism)
        groups = KeyGroupCache(vertex.max_parallelism)
        found = {}
        for position, record in enumerate(records):
            key, sender, _ = record
            stage = list(ChannelStage)[sum(position >= cut for cut in cuts)]
            receiver = routing[groups[key]] if vertex.keyed else (key + sender) % vertex.parallelism
            sender = receiver if stage is ChannelStage.TAKEN else sender
            batch = RowBatch([record], None, [key], [groups[key]]) if vertex.keyed else RowBatch([record])
            owner = sender % vertex.parallelism if stage is ChannelStage.OUTPUT else receiver
            found.setdefault((owner, stage), {}).setdefault((sender, receiver), []).append(batch)
        subtasks = tuple(
            OperatorSnapshot(
                uid=node.uid,
                subtask=subtask,
                channels=tuple(
                    handle(node.uid, vertex.keyed, stage, channels)
                    for (owner, stage), channels in found.items()
                    if owner == subtask
                ),
            )
            for subtask in range(vertex.parallelism)
        )
        operators.append(
            OperatorMetadata(
                uid=node.uid,
                uid_generated=False,
                name=node.name,
                max_parallelism=vertex.max_parallelism,
                parallelism=vertex.parallelism,
                states=(),
                subtasks=subtasks,
            )
        )
    return SnapshotMetadata(
        job_id=JobId("ab" * 16),
        job_name="job",
        checkpoint_id=CheckpointId(1),
        kind=SnapshotKind.CHECKPOINT,
        created_ms=0,
        completed_ms=0,
        operators=tuple(operators),
    )


def handle(uid, keyed, stage, channels):
    data, slices = b"", []
    for (sender, receiver), batches in channels.items():
        piece = encode_slice(batches)
        slices.append(
            ChannelSlice(
                sender=sender,
                receiver=receiver,
                offset=len(data),
                size_bytes=len(piece),
                batches=len(batches),
            )
        )
        data += piece
    return ChannelStateHandle(
        target=uid,
        input=0,
        stage=stage,
        keyed=keyed,
        records=sum(one.batches for one in slices),
        slices=tuple(slices),
        data=InlineHandle(data=data),
    )


layouts = st.tuples(st.integers(1, 4), st.sampled_from([4, 6, 128]))


@settings(max_examples=60)
@given(
    old=layouts,
    new=layouts,
    channels=st.lists(st.tuples(st.integers(0, KEYS - 1), st.integers(0, SENDERS - 1)), max_size=30),
    cuts=st.tuples(st.integers(0, 30), st.integers(0, 30)).map(sorted),
)
def test_every_record_in_flight_is_restored_once_at_any_parallelism(old, new, channels, cuts):
    records = [(key, sender, number) for number, (key, sender) in enumerate(channels)]
    plan = plan_of(*new)
    restore = plan_restore(plan, "", stored(plan_of(*old), records, cuts), allow_non_restored=False)

    for vertex in plan.vertices[1:]:
        found = []
        for subtask in range(vertex.parallelism):
            operators = restore.subtasks.get((vertex.id, subtask), {})
            one = operators.get(vertex.operators[0].uid)
            batches = () if one is None else read_operator(SnapshotFiles(), one, None).in_flight
            if vertex.keyed:
                groups = KeyGroupCache(vertex.max_parallelism)
                routing = routing_table(vertex.max_parallelism, vertex.parallelism)
                for _, batch in batches:
                    assert batch.groups == [groups[key] for key in batch.keys]
                    assert {routing[group] for group in batch.groups} == {subtask}
            found += [record for _, batch in batches for record in batch.values]
        assert sorted(found) == sorted(records)
        if vertex.keyed or vertex.parallelism == 1 == old[0]:
            for key, sender in set(channels):
                own = [record for record in found if record[:2] == (key, sender)]
                assert own == sorted(own)
