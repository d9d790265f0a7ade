"""What is counted of a job while it runs.  Counts include what restarts repeat."""

from collections.abc import Iterable
from typing import NamedTuple


class Counters(NamedTuple):
    """Records that were counted, of one slot or of several."""

    records_in: int = 0
    records_out: int = 0
    dead_letters: int = 0

    @classmethod
    def total(cls, parts: Iterable["Counters"]) -> "Counters":
        """Return the sum of them."""
        return cls(*map(sum, zip(*parts, strict=True)))
