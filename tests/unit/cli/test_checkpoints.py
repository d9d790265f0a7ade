"""`raystream checkpoints` shows what became of each, and what held it up."""

import json
import re

import pytest

from raystream.ids import JobStatus
from raystream.records.elements import SnapshotKind
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
    }
    assert [row["status"] for row in rows] == ["completed", "failed", "pending"]


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
