"""The status line stays at the bottom of a terminal, and standard output stays clean."""

import io
import os
import pty
import re
import subprocess
import sys
import termios
from contextlib import suppress

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


class NarrowingTerminal(io.StringIO):
    """A terminal of 60 columns that wraps what it shows when it is made narrower, as most do."""

    def __init__(self):
        super().__init__()
        self.terminal, self._end = pty.openpty()
        self.columns = 0
        self.rows = [""]
        self.resize(60)

    def fileno(self):
        return self._end

    def resize(self, columns):
        termios.tcsetwinsize(self._end, (24, columns))
        self.columns = columns
        self.rows = [
            row[start : start + columns] for row in self.rows for start in range(0, max(len(row), 1), columns)
        ]

    def write(self, text):
        for part in re.findall(r"\n|\r|\x1b\[\d*[AJK]|[^\n\r\x1b]+", text):
            if part == "\n":
                self.rows.append("")
            elif part == ERASE[1:]:
                self.rows[-1] = ""
            elif part.endswith("A"):
                self.rows[-int(part[2:-1]) :] = []
            elif part == "\x1b[J":
                self.rows[-1] = ""
            elif part != "\r":
                assert len(self.rows[-1] + part) < self.columns, "line does not fit"
                self.rows[-1] += part
        return len(text)

    def close(self):
        os.close(self.terminal)
        os.close(self._end)
        super().close()


@pytest.fixture
def stream():
    return io.StringIO()


@pytest.fixture
def narrowing():
    terminal = NarrowingTerminal()
    yield terminal
    terminal.close()


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


@pytest.mark.parametrize("columns", [59, 58, 30, 20, 7])
def test_nothing_is_left_of_a_status_that_was_wrapped_by_a_narrower_terminal(narrowing, columns):
    narrowing.write("hi\n")
    line = StatusLine(narrowing)
    line.show("x" * 100)
    narrowing.resize(columns)
    line.show("y" * 100)
    shown = list(narrowing.rows)
    narrowing.resize(max(columns // 2, 4))
    line.write_above(narrowing, "0>\n")
    line.clear()

    assert shown == ["hi", "y" * (columns - 1)]
    assert narrowing.rows == ["hi", "0>", ""]


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
    shown = b""
    with suppress(OSError):  # That is the end of what a terminal holds whose other end is closed.
        while part := os.read(terminal, 10_000):
            shown += part
    os.close(terminal)
    assert process.returncode == 0
    return shown.decode().replace("\r\n", "\n"), piped or ""


def test_both_streams_on_one_terminal_share_it():
    shown, _ = run_on_terminal(output_too=True)

    assert screen(shown) == ["0> a", "log", ""]


def test_standard_output_in_a_pipe_gets_no_escape_sequences():
    shown, piped = run_on_terminal(output_too=False)

    assert screen(shown) == ["log", ""]
    assert piped == "0> a\n"
