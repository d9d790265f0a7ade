"""`raystream top` shows what a job does: live, once, as JSON."""

import io
import json

import pytest
from rich.console import Console

from raystream.cli import top
from raystream.cli.main import main
from raystream.errors import RaystreamError
from raystream.ids import JobStatus
from raystream.metrics.reports import OperatorMetrics, SubtaskMetrics
from raystream.runtime.job_metrics import JobMetrics
from tests.unit.cli.fakes import FakeJob, checkpoint, view

NOW_MS = 1_760_000_100_000


def operator(uid, name=None, *, user=None, **values):
    return OperatorMetrics(uid=uid, name=name or uid, values=values, user=user or {})


def times(busy, held):
    return {
        "busy_time_ms_per_second": busy,
        "back_pressured_time_ms_per_second": held,
        "idle_time_ms_per_second": 1_000.0 - busy - held,
    }


def source(subtask, rate, busy):
    parsed = operator("parse", num_records_in_per_second=rate, num_records_out_per_second=rate)
    log = operator("log", num_records_in_per_second=rate, num_records_in=7, **times(busy, 500))
    return SubtaskMetrics(vertex=0, task="log, parse", subtask=subtask, operators=(log, parsed))


def count(subtask, watermark_ms, **values):
    values = {"current_input_watermark": watermark_ms, **times(900, 0), **values}
    counted = operator("count", "count [hits]", **values)
    return SubtaskMetrics(vertex=1, task="count [hits]", subtask=subtask, operators=(counted,))


SUBTASKS = (
    source(0, 1_000, 100), source(1, 500, 300), count(0, NOW_MS - 4_000, state_size=1024),
    count(1, NOW_MS - 1_000, state_size=1024),
)  # fmt: skip
BUSY_JOB = view(
    name="hits", restarts=1, duration_ms=65_000,
    checkpoints=(checkpoint(7), checkpoint(8, "failed", failure="declined: disk is full")),
)  # fmt: skip


def metrics(shown=BUSY_JOB, subtasks=SUBTASKS):
    return JobMetrics(view=shown, wall_ms=NOW_MS, subtasks=subtasks)


class MeasuredJob(FakeJob):
    """A job whose metrics are those of a list, one for each question; the last ones stay."""

    def __init__(self, *answers):
        super().__init__([], now=answers[-1].view)
        self.answers = list(answers)

    def metrics(self):
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture
def shown(cluster, capsys):
    def show(*arguments, job=None):
        cluster.jobs = job or MeasuredJob(metrics())
        code = main(["top", *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return show


@pytest.fixture
def cluster(monkeypatch):
    class Runner:
        jobs = None

        def attach(self, job_id, *, address=None):
            if job_id != "hits":
                raise RaystreamError("no job has this id")
            return self.jobs

    runner = Runner()
    monkeypatch.setattr("raystream.cli.jobs.runner_named", lambda name: runner)
    return runner


def lines_of(text):
    return [line.rstrip() for line in text.splitlines()]


def test_operators_are_summed_up_over_their_subtasks_in_the_order_of_the_plan(shown):
    code, out, _ = shown("hits")
    head, columns, log, parse, counted, *_ = lines_of(out)

    assert code == 0
    assert head.startswith("hits  RUNNING  attempt 1  1 restart  up 0:01:05")
    assert columns.split()[:4] == ["operator", "subtasks", "in/s", "out/s"]
    assert log.split()[:3] == ["log", "2", "1,500"]
    assert parse.split() == ["parse", "2", "1,500", "1,500", "-", "-"], "times stand at the head of a chain"
    assert counted.split()[-4:] == ["4.0", "s", "2.0", "KiB"]
    assert "count [hits]" in counted
    assert "30%" in log, "the busiest subtask"


def test_newest_checkpoints_come_first(shown):
    _, out, _ = shown("hits", "--once")
    eighth, seventh = lines_of(out)[-2:]

    assert eighth.split()[:2] == ["8", "failed"]
    assert eighth.endswith("declined: disk is full")
    assert seventh.split()[:2] == ["7", "completed"]
    assert "84 ms" in seventh


def test_json_has_operators_subtasks_and_checkpoints(shown):
    _, out, _ = shown("hits", "--json")
    told = json.loads(out)

    assert (told["job_id"], told["status"], told["restarts"]) == (BUSY_JOB.job_id, "RUNNING", 1)
    assert [one["uid"] for one in told["operators"]] == ["log", "parse", "count"]
    log, _, counted = told["operators"]
    assert (log["records_in"], log["busy_ms_per_second"], log["busiest_ms_per_second"]) == (14, 200, 300)
    assert (counted["watermark_lag_ms"], counted["state_bytes"]) == (4_000, 2_048)
    assert log["watermark_lag_ms"] is None
    assert told["subtasks"][0]["operators"][0]["values"]["num_records_in"] == 7
    assert [one["checkpoint_id"] for one in told["checkpoints"]] == [8, 7]


def test_job_that_has_ended_or_has_not_begun_shows_what_there_is(shown):
    _, begun, _ = shown("hits", job=MeasuredJob(metrics(view(JobStatus.CREATED, name="hits"), ())))
    _, ended, _ = shown("hits", job=MeasuredJob(metrics(view(JobStatus.FINISHED, name="hits"), ())))

    assert lines_of(begun)[1:] == ["no slot has reported yet"]
    assert lines_of(ended)[0].startswith("hits  FINISHED")
    assert len(lines_of(ended)) == 1


def test_job_that_is_not_there_is_an_error(shown):
    code, out, err = shown("nobody")

    assert (code, out) == (1, "")
    assert "no job has this id" in err


class Pause:
    """Waits for nothing; at the end it does what was said."""

    def __init__(self, looks, at_the_end=lambda: True):
        self.left = looks
        self.at_the_end = at_the_end

    def wait(self, timeout_s):
        self.left -= 1
        return self.at_the_end() if self.left < 0 else False


def watched(job, pause):
    out = io.StringIO()
    top.watch(job, Console(file=out, force_terminal=True, width=120, height=40), pause)
    return out.getvalue()


def test_live_view_ends_with_the_job_and_leaves_its_last_state():
    job = MeasuredJob(metrics(), metrics(), metrics(view(JobStatus.FINISHED, name="hits"), ()))

    out = watched(job, Pause(10))

    assert "RUNNING" in out
    assert "FINISHED" in out.rpartition("\x1b[?1049l")[2], "after the alternate screen is left"


def test_interrupt_ends_the_live_view_and_leaves_the_last_state():
    def interrupt():
        raise KeyboardInterrupt

    out = watched(MeasuredJob(metrics()), Pause(1, interrupt))

    assert "RUNNING" in out.rpartition("\x1b[?1049l")[2]


def test_terminal_without_utf8_gets_plain_bars(monkeypatch):
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    console = Console(file=io.StringIO(), width=200)
    console.print(top.screen(metrics()))

    text = console.file.getvalue()

    assert "##" in text
    assert text.isascii()
