"""The status line at the bottom of a terminal, and everything else that is printed above it.

Knows terminals; does not know jobs.
"""

import contextlib
import io
import os
import sys
import threading
from collections.abc import Iterator
from typing import TextIO, cast

COLUMNS_DEFAULT = 80

_ERASE_LINE = "\r\x1b[2K"


def terminal(stream: TextIO) -> bool:
    """Return whether a line on this stream can be rewritten in place."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


class StatusLine:
    """One line that is rewritten in place, below everything else.

    Args:
        stream: a terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._text = ""
        self._line_begun = False  # Somebody else wrote part of a line, which must not be erased.
        self._lock = threading.RLock()

    def show(self, text: str) -> None:
        """Show a text instead of the one before, cut to the width of the terminal."""
        with self._lock:
            erase = "" if self._line_begun else self._erase()
            self._text = text
            self._draw(erase)

    def clear(self) -> None:
        """Remove the line."""
        self.show("")

    def write_above(self, stream: TextIO, text: str) -> int:
        """Write to a stream that is the same terminal, above the status line."""
        with self._lock:
            if self._text and not self._line_begun:
                self._stream.write(self._erase())
                self._stream.flush()
            written = stream.write(text)
            stream.flush()
            self._line_begun = not text.endswith("\n") if text else self._line_begun
            if self._text:
                self._draw()
        return written

    def _draw(self, before: str = "") -> None:
        """Write the line as far as it fits."""
        if not self._line_begun:
            self._text = self._text[: self._columns() - 1]
            self._stream.write(f"{before}{self._text}")
            self._stream.flush()

    def _erase(self) -> str:
        """Return what removes the line; a terminal that became narrower since has wrapped it."""
        wrapped = max(len(self._text) - 1, 0) // self._columns()
        return f"\r\x1b[{wrapped}A\x1b[J" if wrapped else _ERASE_LINE

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or COLUMNS_DEFAULT
        except (OSError, ValueError):
            return COLUMNS_DEFAULT


class _Above(io.TextIOBase):
    """Stands in for a standard stream: writes above the status line."""

    def __init__(self, stream: TextIO, line: StatusLine) -> None:
        self._stream = stream
        self._line = line

    def write(self, text: str) -> int:
        return self._line.write_above(self._stream, text)

    def flush(self) -> None:
        self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding


@contextlib.contextmanager
def status_line() -> Iterator[StatusLine | None]:
    """Give a status line at the bottom of standard error, or None when that is no terminal.

    In the `with` block everything that goes to a standard stream on a terminal goes above it.
    """
    stdout, stderr = sys.stdout, sys.stderr
    if not terminal(stderr):
        yield None
        return
    line = StatusLine(stderr)
    with contextlib.ExitStack() as redirections:
        redirections.enter_context(contextlib.redirect_stderr(cast(TextIO, _Above(stderr, line))))
        if stdout.isatty():
            redirections.enter_context(contextlib.redirect_stdout(cast(TextIO, _Above(stdout, line))))
        redirections.callback(line.clear)
        yield line
