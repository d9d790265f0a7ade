"""Finds the shortest list of faults with which a simulated run still fails.

Delta debugging: parts of the list are left out, halves first and single faults last, as long as
what is left fails.  Every try is a run of the same seed, so that the same list always comes out.

Source:
    Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", 2002.
"""

from collections.abc import Callable, Sequence

from raystream.testing.faults import Fault

TRIES_MAX = 120
"""Runs for one list; what was reached then is what comes out."""


def shortest_failing(
    faults: Sequence[Fault], fails: Callable[[tuple[Fault, ...]], bool]
) -> tuple[Fault, ...]:
    """Return a part of a failing list from which no fault can be left out, in the same order.

    Args:
        faults: with which a run fails.
        fails: runs with some of them, and tells whether that fails.
    """
    kept, parts, tries = tuple(faults), 2, 0
    if kept and fails(()):
        return ()
    while len(kept) > 1 and tries < TRIES_MAX:
        size = -(-len(kept) // parts)
        for start in range(0, len(kept), size):
            rest = kept[:start] + kept[start + size :]
            tries += 1
            if fails(rest):
                kept, parts = rest, max(parts - 1, 2)
                break
        else:
            if size == 1:
                break
            parts = min(parts * 2, len(kept))
    return kept
