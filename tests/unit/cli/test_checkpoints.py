"""`raystream checkpoints` shows what became of each, and what held it up."""

import json
import re

import pytest

from raystream.ids import JobStatus
from raystream.records.elements import SnapshotKind
from raystream.storage.archive import SubtaskRecord
from tests.unit.cli.fakes import checkpoint, view

HISTORY = (
    checkpoint(1, uploaded_bytes=512),
    checkpoint(2, "failed", failure="declined: disk is full", size_bytes=0),
    checkpoint(3, "pending", size_bytes=0, duration_ms=0.0, kind=SnapshotKind.SAVEPOINT),
)


def test_checkpoints_are_shown_with_what_became_of_them(raystream, cluster):
    cluster.views = [view(checkpoints=HISTORY)]

    lines = raystream("checkpoints", "numbers").out.splitlines()

    assert [re.split(r" {2,}", line.strip()) for line in lines] == [
        ["id", "kind", "status", "triggered", "duration", "size", "written", "path or failure"],
        [
            "1", "checkpoint", "completed", "2025-10-09 08:53:20Z", "84 ms", "2.0 KiB", "512 B",
            "file:///checkpoints/5eed/chk-1",
        ],
        [
            "2", "checkpoint", "failed", "2025-10-09 08:53:20Z", "84 ms", "0 B", "0 B",
            "declined: disk is full",
        ],
        ["3", "savepoint", "pending", "2025-10-09 08:53:20Z", "0 ms", "0 B", "0 B", "-"],
    ]  # fmt: skip


def test_checkpoints_as_json(raystream, cluster):
    cluster.views = [view(checkpoints=HISTORY)]

    rows = json.loads(raystream("checkpoints", "numbers", "--json").out)

    assert rows[0] == {
        "checkpoint_id": 1,
        "kind": "checkpoint",
        "status": "completed",
        "triggered_ms": 1_760_000_000_000,
        "duration_ms": 84.0,
        "size_bytes": 2048,
        "uploaded_bytes": 512,
        "path": "file:///checkpoints/5eed/chk-1",
        "failure": "",
        "purpose": "periodic",
        "attempt": 1,
        "held_up_by": "",
        "missing": [],
        "missing_count": 0,
        "subtasks": [],
    }
    assert [row["status"] for row in rows] == ["completed", "failed", "pending"]


def part(subtask, **times):
    fields = {"start_delay_ms": 20.0, "alignment_ms": 0.0, "sync_ms": 1.0, "async_ms": 30.0, **times}
    named = {"vertex": 1, "name": "count hits", "subtask": subtask, "parallelism": 12}
    return SubtaskRecord(**named, size_bytes=2048, **fields)


SLOW = (part(2, alignment_ms=4_200.0), *(part(n) for n in range(12) if n != 2))
WHY = "count hits 3/12: alignment 4.2 s of 4.3 s: input of read 2/4 is behind"


def test_newest_checkpoint_is_shown_with_its_slowest_subtasks_and_what_held_it_up(raystream, cluster):
    slow = checkpoint(2, held_up_by=WHY, subtasks=SLOW, duration_ms=4_300.0)
    cluster.views = [view(checkpoints=(checkpoint(1), slow, checkpoint(3, "pending")))]

    *_, heading, why, header, first, second = raystream("checkpoints", "numbers").out.splitlines()[:10]
    assert heading == "checkpoint 2, completed, 4.3 s"
    assert why == f"held up by: {WHY}"
    assert header.split() == [
        "subtask", "total", "start", "delay", "alignment", "synchronous", "asynchronous", "size",
    ]  # fmt: skip
    assert re.split(r" {2,}", first.strip()) == [
        "count hits 3/12", "4.3 s", "20 ms", "4.2 s", "1 ms", "30 ms", "2.0 KiB",
    ]  # fmt: skip
    assert second.startswith("count hits 1/12")
    assert raystream("checkpoints", "numbers").out.splitlines()[-1].startswith("and 2 quicker subtasks")


def test_records_in_flight_are_shown_where_a_checkpoint_has_some(raystream, cluster):
    overtaken = checkpoint(1, held_up_by=WHY, subtasks=(part(0, in_flight_bytes=1024), part(1)))
    cluster.views = [view(checkpoints=(overtaken,))]

    *_, header, first, second = raystream("checkpoints", "numbers").out.splitlines()
    assert header.endswith("in flight")
    assert (first.split()[-2:], second.split()[-2:]) == (["1.0", "KiB"], ["0", "B"])


def test_chosen_checkpoint_is_shown_with_all_its_subtasks(raystream, cluster):
    slow = checkpoint(1, held_up_by=WHY, subtasks=SLOW)
    cluster.views = [view(checkpoints=(slow, checkpoint(2)))]

    assert raystream("checkpoints", "numbers", "--id", "1").out.count("count hits ") == 1 + len(SLOW)
    (row,) = json.loads(raystream("checkpoints", "numbers", "--id", "1", "--json").out)
    assert (row["checkpoint_id"], row["held_up_by"], len(row["subtasks"])) == (1, WHY, 12)
    assert row["subtasks"][0]["alignment_ms"] == 4_200.0


def test_checkpoint_that_is_not_known_is_a_wrong_command_line(raystream, cluster):
    cluster.views = [view(checkpoints=HISTORY)]
    outcome = raystream("checkpoints", "numbers", "--id", "9")

    assert (outcome.code, outcome.out) == (2, "")
    assert "raystream checkpoints numbers" in outcome.error[-1]


def test_checkpoint_that_expired_is_shown_with_those_that_it_waited_for(raystream, cluster):
    expired = checkpoint(
        1, "failed", failure="expired: late", missing=("read 1/4", "count 1/2"), missing_count=7,
        held_up_by="read 1/4 and 6 more, most of them behind it had not acknowledged",
    )  # fmt: skip
    cluster.views = [view(checkpoints=(expired,))]

    lines = raystream("checkpoints", "numbers").out.splitlines()
    assert lines[-2].startswith("held up by: read 1/4 and 6 more")
    assert lines[-1] == "not acknowledged: read 1/4, count 1/2 and 5 more"


def test_why_a_checkpoint_was_slow_is_in_the_archive(raystream, no_cluster, archive):
    slow = checkpoint(1, held_up_by=WHY, subtasks=SLOW, purpose="manual")
    options = archive(view(JobStatus.FINISHED, checkpoints=(slow,)))

    (row,) = json.loads(raystream("checkpoints", "numbers", "--json", *options).out)
    assert (row["held_up_by"], row["purpose"], len(row["subtasks"])) == (WHY, "manual", 12)


@pytest.mark.parametrize("gone", [True, False])
def test_checkpoints_that_were_deleted_have_no_path(raystream, cluster, archive, gone):
    """Whether the job master still answers or only its archive."""
    job = view(JobStatus.FINISHED, checkpoints=[checkpoint(1, path=""), checkpoint(2)])
    cluster.views = [] if gone else [job]
    options = archive(job)

    rows = json.loads(raystream("checkpoints", "numbers", "--json", *options).out)

    assert [(row["status"], row["path"]) for row in rows] == [
        ("deleted", ""), ("completed", "file:///checkpoints/5eed/chk-2")
    ]  # fmt: skip


def test_checkpoints_of_a_job_whose_master_is_gone_come_from_its_archive(raystream, no_cluster, archive):
    options = archive(view(JobStatus.FAILED, checkpoints=HISTORY[:2]))

    rows = json.loads(raystream("checkpoints", "numbers", "--json", *options).out)

    assert [(row["checkpoint_id"], row["status"]) for row in rows] == [(1, "completed"), (2, "failed")]
    assert [(row["size_bytes"], row["uploaded_bytes"]) for row in rows] == [(2048, 512), (0, 0)]
