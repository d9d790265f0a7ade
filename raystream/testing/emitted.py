"""Finds records that a function changes after it has emitted them.

In a job such a change reaches some receivers and not others, depending on where a batch was cut
and on whether the receiver runs in the same process.
"""

import copy
from collections import deque
from typing import Any

from raystream.state.immutable import immutable

WATCHED_MAX = 4096
"""Newest emitted records that are watched."""


class EmittedRecords:
    """Remembers how records were when they were emitted.

    What cannot be copied, or is not equal to its copy, is not watched.
    """

    def __init__(self) -> None:
        self._watched: deque[tuple[Any, Any]] = deque(maxlen=WATCHED_MAX)

    def __call__(self, record: Any) -> Any:
        """Watch a record that is being emitted, and return it."""
        if not immutable(record):
            try:
                as_emitted = copy.deepcopy(record)
                if as_emitted == record:
                    self._watched.append((record, as_emitted))
            except Exception:  # Of the record's class: nothing can be said about this one.
                return record
        return record

    def check(self) -> None:
        """Compare what is watched with how it was.

        Raises:
            AssertionError: a record has changed.
        """
        for record, as_emitted in self._watched:
            if record != as_emitted:
                raise AssertionError(
                    "function changed a record after it had emitted it, "
                    "which depends on where batches are cut: emit a copy\n"
                    f"  emitted {as_emitted!r}\n"
                    f"  now     {record!r}"
                )
