"""A source that reads slowly, and does not end, until a file is there.

A test that does something to a running job starts it behind this one, and makes the file when it has
done all: so the job is never over too early, on whatever machine.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raystream.operators.source import END, NOTHING, PerSplitReader, ReaderContext, Source, SplitReader

PAUSE_MS = 5.0


@dataclass(frozen=True)
class HeldSource:
    """Another source, held back until a file is there.

    Args:
        inner: the other source.
        go: the file.
        records: what each reader reads between two pauses; nothing is caught up with.
    """

    inner: Source
    go: Path
    records: int = 16

    @property
    def bounded(self):
        return self.inner.bounded

    @property
    def rewindable(self):
        return self.inner.rewindable

    def enumerator(self, context, state):
        return self.inner.enumerator(context, state)

    def open_reader(self, context):
        inner = self.inner.open_reader(context)
        reader = _HeldPerSplitReader if isinstance(inner, PerSplitReader) else _HeldReader
        return reader(inner, context, self)


class _HeldReader:
    def __init__(self, inner: SplitReader, context: ReaderContext, held: HeldSource) -> None:
        self._inner = inner
        self._context = context
        self._held = held
        self._next_ms = 0.0

    def poll(self, records_max, bytes_max):
        if self._held.go.exists():
            return self._inner.poll(records_max, bytes_max)
        now_ms = self._context.clock.monotonic_ms()
        if now_ms < self._next_ms:
            self._context.wake_at(self._next_ms)
            return NOTHING
        result = self._inner.poll(min(self._held.records, records_max), bytes_max)
        self._next_ms = now_ms + PAUSE_MS
        self._context.wake_at(self._next_ms)
        return NOTHING if result is END else result

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _HeldPerSplitReader(_HeldReader):
    def active_splits(self):
        return self._inner.active_splits()
