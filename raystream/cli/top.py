"""`raystream top`: what the operators of a job do right now, on one screen.

    hits  RUNNING  attempt 1  0 restarts  up 0:12:03
    operator      subtasks     in/s    out/s  busy / back-pressured / idle   watermark lag    state
    access log           2     1.2M     1.2M  ████▒▒▒▒▒▒▒▒▒▒············ 20%             -        -
      parse              2     1.2M     1.2M
    count hits           2     1.2M     1.2M  ██████████████████████████ 99%          1.2 s  4.0 MiB

Asks the job master about once a second and keeps nothing.  Where standard output is no terminal, and
with `--once`, the state of the moment is printed, and with `--json` as JSON.
"""

import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from raystream.api.client import JobClient
from raystream.cli.jobs import Jobs, json_option, of_cluster
from raystream.cli.listing import CheckpointRow, print_as_json, visible
from raystream.cli.progress import counted, elapsed, short_count, short_duration, short_size
from raystream.cli.terminal import terminal
from raystream.runtime.job_metrics import JobMetrics, OperatorSummary

INTERVAL_S = 1.0
BAR_COLUMNS = 26
CHECKPOINTS_SHOWN = 4
COLUMNS_IN_A_PIPE = 200

_MARKS = (("█", "#", "green"), ("▒", "=", "yellow"), ("·", ".", "dim"))
"""Of busy, back-pressured and idle time: in UTF-8, in other encodings, and their colour."""


@click.command(short_help="Show what the operators of a job do, live.")
@click.argument("job", metavar="JOB")
@click.option("--once", is_flag=True, help="Print the state of this moment and end.")
@json_option
@of_cluster
def top(jobs: Jobs, job: str, once: bool, as_json: bool) -> None:
    """Show the operators of a job, once a second until the job ends or Ctrl-C.

    For each operator the records per second that it takes in and emits; for each chain of operators, at its
    first one, which share of the time it is busy, back-pressured (held up by what is downstream) and
    idle, as a bar over its subtasks, with the busy share of the busiest one; how far event time is
    behind the clock; the size of the state in the last checkpoint.  Below them the newest checkpoints.
    """
    client = jobs.client(job)
    if as_json:
        print_as_json(as_plain(client.metrics()))
    elif once or not terminal(sys.stdout):
        _console(live=False).print(screen(client.metrics()))
    else:
        watch(client, _console(live=True))


def watch(client: JobClient, console: Any, pause: threading.Event | None = None) -> None:
    """Show a job until it has ended, or an interrupt; its last state stays on the terminal.

    Args:
        client: of the job.
        console: of `rich`.
        pause: waits between two looks; once it is set there are no more.
    """
    from rich.live import Live

    pause = pause or threading.Event()
    metrics: JobMetrics = client.metrics()
    try:
        with Live(screen(metrics), console=console, screen=True, auto_refresh=False) as live:
            while not metrics.view.status.terminal and not pause.wait(INTERVAL_S):
                metrics = client.metrics()
                live.update(screen(metrics), refresh=True)
    except KeyboardInterrupt:
        pass  # The way to leave.
    console.print(screen(metrics))


def screen(metrics: JobMetrics) -> Any:
    """Return what is shown of a job, for a console of `rich`."""
    from rich.console import Group
    from rich.text import Text

    view = metrics.view
    head = (
        f"{visible(view.name)}  {view.status.value}  attempt {view.attempt}  "
        f"{counted(view.restarts, 'restart')}  up {elapsed(view.duration_ms)}  {view.job_id}"
    )
    parts: list[Any] = [Text(head, style="bold")]
    if view.waiting_for:
        parts.append(Text(f"waits for {visible(view.waiting_for)}", style="yellow"))
    if metrics.subtasks:
        parts.append(_operators(metrics))
    elif not view.status.terminal:
        parts.append(Text("no slot has reported yet"))
    if view.checkpoints:
        parts += [Text(), _checkpoints(metrics)]
    return Group(*parts)


def as_plain(metrics: JobMetrics) -> dict[str, Any]:
    """Return everything that is known, for programs."""
    view = metrics.view
    return {
        "job_id": view.job_id,
        "name": view.name,
        "status": view.status.value,
        "attempt": view.attempt,
        "restarts": view.restarts,
        "duration_ms": view.duration_ms,
        "operators": [
            asdict(one) | {"watermark_lag_ms": lag_ms(one, metrics)} for one in metrics.operators()
        ],
        "subtasks": [asdict(one) for one in metrics.subtasks],
        "checkpoints": [asdict(row) | {"subtasks": len(row.subtasks)} for row in _newest(metrics)],
    }


def lag_ms(operator: OperatorSummary, metrics: JobMetrics) -> int | None:
    """Return how far event time is behind the clock; None where there is none."""
    return None if operator.watermark_ms is None else metrics.wall_ms - operator.watermark_ms


def bar(times_ms: Sequence[float], columns: int, marks: Sequence[str]) -> list[str]:
    """Return three runs of marks, together `columns` long, as long as the three times are large.

    Example:
        >>> "".join(bar((250.0, 500.0, 250.0), 8, "#=."))
        '##====..'
        >>> "".join(bar((999.0, 0.0, 1.0), 8, "#=."))
        '########'
    """
    total_ms = sum(times_ms) or 1.0
    ends = [0]
    passed_ms = 0.0
    for time_ms in times_ms:
        passed_ms += time_ms
        ends.append(round(columns * passed_ms / total_ms))
    ends[-1] = columns
    return [mark * (end - start) for mark, start, end in zip(marks, ends, ends[1:], strict=False)]


def _operators(metrics: JobMetrics) -> Any:
    from rich.table import Table

    operators = metrics.operators()
    table = Table(box=None, pad_edge=False)
    table.add_column("operator", overflow="fold")
    for name in ("subtasks", "in/s", "out/s"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("busy / back-pressured / idle", no_wrap=True)
    dead = any(one.dead_letters for one in operators)
    for name in ("watermark lag", "state", *(["dead letters"] * dead)):
        table.add_column(name, justify="right", no_wrap=True)
    for one in operators:
        lag = lag_ms(one, metrics)
        cells = [
            ("" if one.head else "  ") + visible(one.name),
            str(one.parallelism),
            short_count(one.records_in_per_second),
            short_count(one.records_out_per_second),
            _times(one) if one.head else "",
            "-" if lag is None else short_duration(lag),
            "-" if one.state_bytes is None else short_size(one.state_bytes),
            f"{one.dead_letters:,}",
        ]
        table.add_row(*map(_plain, cells[: 7 + dead]))
    return table


def _times(operator: OperatorSummary) -> Any:
    from rich.text import Text

    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    times_ms = (
        operator.busy_ms_per_second, operator.back_pressured_ms_per_second, operator.idle_ms_per_second
    )  # fmt: skip
    marks = [fine if utf8 else coarse for fine, coarse, _ in _MARKS]
    runs = bar(times_ms, BAR_COLUMNS, marks)
    text = Text()
    for run, (_, _, colour) in zip(runs, _MARKS, strict=True):
        text.append(run, style=colour)
    text.append(f" {min(operator.busiest_ms_per_second / 10, 100):3.0f}%")
    return text


def _checkpoints(metrics: JobMetrics) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("checkpoint", "status", "duration", "size", "ago"):
        table.add_column(name, justify="left" if name == "status" else "right", no_wrap=True)
    table.add_column("held up by, or failure", overflow="fold")
    for row in _newest(metrics):
        size, duration = short_size(row.size_bytes), short_duration(row.duration_ms)
        ended = row.status != "pending"
        ago = elapsed(max(metrics.wall_ms - row.triggered_ms, 0))
        why = row.failure or row.held_up_by
        cells = (str(row.checkpoint_id), row.status, duration * ended, size * ended, ago, visible(why))
        table.add_row(*map(_plain, cells))
    return table


def _newest(metrics: JobMetrics) -> list[CheckpointRow]:
    return [CheckpointRow.of(one) for one in reversed(metrics.view.checkpoints[-CHECKPOINTS_SHOWN:])]


def _plain(cell: Any) -> Any:
    from rich.text import Text

    return Text(cell) if isinstance(cell, str) else cell  # A name with [brackets] is no markup.


def _console(*, live: bool) -> Any:
    from rich.console import Console

    on_terminal = live or terminal(sys.stdout)
    return Console(file=sys.stdout, width=None if on_terminal else COLUMNS_IN_A_PIPE, highlight=False)
