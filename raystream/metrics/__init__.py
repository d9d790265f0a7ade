"""What is counted and measured of a job while it runs.

    counters of operators, `TaskTimes` ─┐ once a second, on the loop of the slot
    user metrics (`ctx.metrics`)       ─┴▶ SubtaskMetrics ─▶ job master ─▶ `raystream top`
                                                  └────────▶ Ray's metrics ─▶ Prometheus

`catalogue` has the name and the meaning of every metric, `user` what user code counts with, `reports`
what a slot reports, `rates` what makes rates of totals.  Counts begin at zero with every attempt and
include what restarts repeat.
"""

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
