"""The status line stays at the bottom of a terminal, and standard output stays clean."""

import io
import os
import pty
import re
import subprocess
import sys

import pytest

from raystream.cli.terminal import StatusLine, status_line

ERASE = "\r\x1b[2K"


def screen(written: str) -> list[str]:
    """Return the lines that a terminal shows after these writes."""
    lines = [""]
    for part in re.split(r"(\n|\r\x1b\[2K)", written):
        if part == "\n":
            lines.append("")
        elif part == ERASE:
            lines[-1] = ""
        else:
            lines[-1] += part
    return lines


@pytest.fixture
def stream():
    return io.StringIO()


def test_status_is_rewritten_in_place(stream):
    line = StatusLine(stream)
    line.show("RUNNING 1")
    line.show("RUNNING 2")

    assert screen(stream.getvalue()) == ["RUNNING 2"]


def test_other_output_appears_above_the_status(stream):
    line = StatusLine(stream)
    line.show("RUNNING")
    line.write_above(stream, "0> a\n0> b\n")

    assert screen(stream.getvalue()) == ["0> a", "0> b", "RUNNING"]


def test_line_that_is_written_in_parts_is_not_torn(stream):
    line = StatusLine(stream)
    line.show("RUNNING 1")
    line.write_above(stream, "0> ")
    line.show("RUNNING 2")
    line.write_above(stream, "a\n")

    assert screen(stream.getvalue()) == ["0> a", "RUNNING 2"]


def test_nothing_is_left_of_a_cleared_status(stream):
    line = StatusLine(stream)
    line.show("RUNNING")
    line.write_above(stream, "0> a\n")
    line.clear()

    assert screen(stream.getvalue()) == ["0> a", ""]


def test_status_is_cut_to_the_width_of_the_terminal(stream):
    StatusLine(stream).show("x" * 1_000)

    assert screen(stream.getvalue()) == ["x" * 79]


def test_there_is_no_status_line_without_a_terminal(capsys):
    with status_line() as line:
        assert line is None
        print("0> a")

    assert capsys.readouterr().out == "0> a\n"


PROGRAM = """
import sys
from raystream.cli.terminal import status_line
with status_line() as line:
    line.show("RUNNING")
    print("0> a")
    print("log", file=sys.stderr)
"""


def run_on_terminal(*, output_too: bool) -> tuple[str, str]:
    """Run the program with standard error, and standard output or not, on a terminal.

    Returns:
        What the terminal got, and what came through the pipe.
    """
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdout=end if output_too else subprocess.PIPE,
        stderr=end,
        env={**os.environ, "TERM": "xterm"},
        text=True,
    )
    os.close(end)
    piped, _ = process.communicate()
    shown = os.read(terminal, 10_000).decode().replace("\r\n", "\n")
    os.close(terminal)
    assert process.returncode == 0
    return shown, piped or ""


def test_both_streams_on_one_terminal_share_it():
    shown, _ = run_on_terminal(output_too=True)

    assert screen(shown) == ["0> a", "log", ""]


def test_standard_output_in_a_pipe_gets_no_escape_sequences():
    shown, piped = run_on_terminal(output_too=False)

    assert screen(shown) == ["log", ""]
    assert piped == "0> a\n"
