"""`logs` shows each line behind the process that has written it."""

from raystream.cluster import job_logs
from raystream.cluster.node_logs import LogLine


def test_each_line_begins_with_its_process(raystream, monkeypatch):
    asked = []

    def lines(wanted, *, address, follow):
        asked.append((wanted, address, follow))
        yield LogLine("master", "job accepted")
        yield LogLine("slot-1", "user print")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(job_logs, "job_logs", lines)

    outcome = raystream("logs", "-f", "hits")

    assert outcome.out == "master | job accepted\nslot-1 | user print\n"
    assert asked == [("hits", None, True)]
