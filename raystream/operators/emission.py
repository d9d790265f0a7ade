"""What happens to a record when it is emitted: nothing, or it is copied.

A record must not change once it is emitted, since whoever gets it may still hold it.  With
`pipeline.copy-records` user code may break that rule: each record is copied when it is emitted,
before the code that has emitted it goes on, and again for every further receiver.  This is what
Flink does with object reuse disabled.

Operators ask once per batch, or once at all, so that nothing is done per record without the option.
"""

import copy
from collections.abc import Callable, Iterable
from typing import Any

from raystream.operators.operator import Emit
from raystream.records.batch import RowBatch

Pass = Callable[[Any], Any]
"""Is called with a record when it is emitted, and returns what is handed on in its place."""

copy_of: Pass = copy.deepcopy
"""The one that `pipeline.copy-records` asks for."""


def collector(out: list[Any], emitted: Pass | None) -> Callable[[Iterable[Any]], None]:
    """Return what appends emitted records to a list, each in the moment in which it is yielded."""
    if emitted is None:
        return out.extend
    # A generator and not `map`, which would take a StopIteration of `emitted` for the end of the records.
    return lambda records: out.extend(emitted(record) for record in records)


def emitting(target: Emit, emitted: Pass) -> Emit:
    """Return an emit that hands over a batch of what `emitted` makes of its records."""
    return lambda batch: target(
        RowBatch([emitted(value) for value in batch.values], batch.timestamps, batch.keys, batch.groups)
    )
