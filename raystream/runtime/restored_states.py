"""What became of every state of a job at a restore, and the one error that shows all of it.

    _metadata    operators that the program does not have ─┐
    slot 0, 1..  each state of each operator that is open ─┴─▶ joined by operator and state ─▶ fits, or not

An operator that is gone is found before there is a slot, and refused at once unless its state may be
dropped.  What only operators know, which states they declare and how, is reported by each slot when
all of its own are open; the coordinator has them all before it lets any slot process a record.
"""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from raystream.errors import StateRestoreError
from raystream.state.registry import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoredState:
    """One state of one operator at a restore, in one subtask or in all of them.

    Attributes:
        operator: its name, for people.
        state: its name; of an operator that is looked at as a whole, the names of all its states.
        note: why the program cannot take it over, or what it may have been renamed to.
        entries: stored entries, as far as they are known; None where they were not looked at.
        size_bytes: what is stored.
    """

    verdict: Verdict
    uid: str
    operator: str
    state: str
    note: str = ""
    entries: int | None = None
    size_bytes: int | None = None


def joined(states: Iterable[RestoredState]) -> list[RestoredState]:
    """Return one for each state: entries and bytes of its subtasks are added up, the worst verdict counts."""
    found: dict[tuple[str, str], RestoredState] = {}
    for state in states:
        key = state.uid, state.state
        before = found.get(key)
        if before is None:
            found[key] = state
            continue
        worst = min(before, state, key=lambda one: _WORST_FIRST.index(one.verdict))
        found[key] = replace(
            worst,
            entries=_sum(before.entries, state.entries),
            size_bytes=_sum(before.size_bytes, state.size_bytes),
        )
    return [*found.values()]


def refusal(states: Sequence[RestoredState], *, drop: bool) -> StateRestoreError | None:
    """Return the error about a restore that cannot go on; None when it can.

    Args:
        states: all of the job, joined.
        drop: the user allows that state which the program does not have is dropped.
    """
    verdicts = {state.verdict for state in states}
    advice = []
    if Verdict.DIFFERENT in verdicts:
        advice.append(
            "declare state as it was when it was written, give its descriptor a `migrate` function, or"
            " register the new one under another name"
        )
    if Verdict.MISSING in verdicts and not drop:
        advice.append(
            "register missing state again, under the uid and the name that it had, or drop it with"
            " --allow-non-restored-state"
        )
    if not advice:
        return None
    return StateRestoreError(
        "snapshot has state that the program does not register, or registers differently:\n" + table(states),
        hint="; ".join(advice),
    )


def table(states: Sequence[RestoredState]) -> str:
    """Return one line for each state; what is missing has the nearest new name as a guess."""
    rows = [("", "uid", "operator", "state", "entries", "bytes", "")]
    rows += [
        (
            state.verdict.value,
            state.uid,
            state.operator,
            state.state,
            _shown(state.entries),
            _shown(state.size_bytes),
            state.note or _guess(state, states),
        )
        for state in states
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(f"  {line}" for line in lines)


_WORST_FIRST = (Verdict.DIFFERENT, Verdict.MISSING, Verdict.MATCHED, Verdict.NEW)


def _guess(missing: RestoredState, states: Sequence[RestoredState]) -> str:
    """Return to what a missing state, or its operator, may have been renamed; empty when nothing is near."""
    if missing.verdict is not Verdict.MISSING:
        return ""
    new = [state for state in states if state.verdict is Verdict.NEW]
    kept = {state.uid for state in states if state.verdict is not Verdict.MISSING}
    if missing.uid in kept:
        wanted, candidates = missing.state, [state.state for state in new if state.uid == missing.uid]
    else:
        # An operator of which nothing was stored is new as a whole.
        known = {state.uid for state in states if state.verdict is not Verdict.NEW}
        wanted, candidates = missing.uid, [state.uid for state in new if state.uid not in known]
    nearest = difflib.get_close_matches(wanted, candidates, n=1)
    return f"renamed to {nearest[0]!r}?" if nearest else ""


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


def _shown(number: int | None) -> str:
    return "" if number is None else str(number)


class RestoreCheck:
    """Joins what the slots of an attempt have found, and judges it when all have said so.

    Args:
        slot_count: slots of the job.
        drop: the user allows that state which the program does not have is dropped.
    """

    def __init__(self, slot_count: int, *, drop: bool) -> None:
        self._slot_count = slot_count
        self._drop = drop
        self._gone: Sequence[RestoredState] = ()
        self._found: dict[int, Sequence[RestoredState]] = {}

    def begin(self, gone: Sequence[RestoredState]) -> None:
        """Begin an attempt; `gone` is the state of operators that the program does not have."""
        self._gone = gone
        self._found = {}

    def slot_found(self, slot: int, states: Sequence[RestoredState]) -> str:
        """Take in what a slot has found, before it runs.

        Returns:
            A table of everything, when this was the last slot and something is dropped; else nothing.

        Raises:
            StateRestoreError: it was the last slot, and not everything fits.
        """
        self._found[slot] = states
        if len(self._found) < self._slot_count:
            return ""
        # By slot, whichever was ready first, so that the table is always the same.
        of_slots = [state for number in sorted(self._found) for state in self._found[number]]
        all_states = joined([*of_slots, *self._gone])
        error = refusal(all_states, drop=self._drop)
        if error is not None:
            raise error
        return table(all_states) if Verdict.MISSING in {state.verdict for state in all_states} else ""
