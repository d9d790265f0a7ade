"""The logs of a job are read in whole lines, from where a client has got to."""

import pytest

from raystream.cluster import node_logs
from raystream.cluster.node_logs import NodeLogsActor

JOB_ID = "5eed" * 8


@pytest.fixture
def logs(monkeypatch, tmp_path):
    """Logs of two processes of a job: the directory of their links."""
    monkeypatch.setattr(node_logs.compat, "logs_directory", lambda: str(tmp_path))
    links = tmp_path / "raystream" / JOB_ID
    links.mkdir(parents=True)
    for name, file in {"10-master.err": "worker-a.err", "20-slot-0.out": "worker-b.out"}.items():
        (tmp_path / file).touch()
        (links / name).symlink_to(tmp_path / file)
    return tmp_path


def test_only_whole_lines_are_read_and_each_once(logs):
    actor = NodeLogsActor()
    (logs / "worker-a.err").write_text("one\ntwo\nthr")

    first = actor.read(JOB_ID, {})
    (logs / "worker-a.err").write_text("one\ntwo\nthree\n")
    (logs / "worker-b.out").write_text("printed\n")

    assert first == [("10-master.err", 8, b"one\ntwo\n")]
    assert actor.read(JOB_ID, {"10-master.err": 8}) == [
        ("10-master.err", 14, b"three\n"),
        ("20-slot-0.out", 8, b"printed\n"),
    ]


def test_long_log_is_read_in_pieces(logs, monkeypatch):
    monkeypatch.setattr(node_logs, "READ_BYTES_MAX", 10)
    (logs / "worker-a.err").write_text("one\ntwo\nthree\nfour\n")
    positions, pieces = {}, []

    while found := NodeLogsActor().read(JOB_ID, positions):
        for name, position, lines in found:
            positions[name] = position
            pieces.append(lines)

    assert pieces == [b"one\ntwo\n", b"three\n", b"four\n"]


def test_line_without_end_is_cut_where_a_piece_ends(logs, monkeypatch):
    monkeypatch.setattr(node_logs, "READ_BYTES_MAX", 4)
    (logs / "worker-a.err").write_text("abcdefgh")

    assert NodeLogsActor().read(JOB_ID, {}) == [("10-master.err", 4, b"abcd")]


def test_node_that_has_run_nothing_of_a_job_has_no_logs_of_it(logs):
    (logs / "raystream" / JOB_ID / "10-master.err").unlink()
    (logs / "raystream" / JOB_ID / "30-slot-2.out").symlink_to(logs / "gone")

    assert NodeLogsActor().read(JOB_ID, {}) == []
    assert NodeLogsActor().read("0" * 32, {}) == []
    assert NodeLogsActor().jobs() == [JOB_ID]
