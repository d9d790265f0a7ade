"""Which stored state goes to which subtask at a restore, perhaps at another parallelism.

Pure arithmetic over handles: it reads how many elements or which key groups a handle holds
and never what is in it.  Keyed state follows its key groups, or its keys when their number has
changed; operator state follows its mode:

    SPLIT       p unchanged: handles stay where they are.  p changed: the elements of one name, in the
                order of the old subtasks, are cut into p runs that differ by at most one
    UNION       every new subtask gets every element
    BROADCAST   new subtask i gets the copy of old subtask i % old p

Records in flight go where their keys are, if they have any.  Others stay at their subtask, and at another
parallelism are cut into p runs of batches like SPLIT state.  What comes of one old channel keeps its order.

Source: Flink `RoundRobinOperatorStateRepartitioner`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from raystream.errors import StateCorruptError
from raystream.handles import (
    ChannelSlice,
    ChannelStage,
    ChannelStateHandle,
    KeyedStateHandle,
    OperatorStateHandle,
    Redistribution,
)
from raystream.keygroup import KeyGroupRange, groups_of_subtask


@dataclass(frozen=True, slots=True, kw_only=True)
class ElementSlice:
    """The elements `start <= i < stop` of one stored operator-state handle; never empty."""

    handle: OperatorStateHandle
    start: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyGroupLayout:
    """How the key groups of an operator are dealt to its subtasks."""

    max_parallelism: int
    parallelism: int

    def groups(self, subtask: int) -> KeyGroupRange:
        """Return those of one subtask."""
        return groups_of_subtask(subtask, self.max_parallelism, self.parallelism)


Assignment = dict[int, list[ElementSlice]]
"""What each new subtask reads; every subtask has an entry."""


def holding(
    handles: Iterable[KeyedStateHandle],
    groups: KeyGroupRange,
    *,
    stored_max_parallelism: int,
    max_parallelism: int,
) -> list[KeyedStateHandle]:
    """Return the handles that may hold keys of some key groups, in their order.

    The ranges of stored handles may be any; the reader takes only its own keys from each.

    Args:
        handles: stored ones, their ranges under `stored_max_parallelism`.
        groups: the wanted key groups, under `max_parallelism`.
        stored_max_parallelism: number of key groups when the handles were stored.
        max_parallelism: number of key groups now.
    """
    # A hash h is in the groups h mod M and h mod N; all that ties these two to each other is that
    # they are equal modulo the greatest common divisor.  For M = N that leaves the overlap.
    step = math.gcd(stored_max_parallelism, max_parallelism)
    return [handle for handle in handles if _may_hold(handle.groups, groups, step)]


def _may_hold(stored: KeyGroupRange, wanted: KeyGroupRange, step: int) -> bool:
    least, most = stored.start - (wanted.stop - 1), (stored.stop - 1) - wanted.start
    return most // step * step >= least


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRun:
    """The batches `start <= i < stop` of one slice of records in flight; never empty."""

    handle: ChannelStateHandle
    slice: ChannelSlice
    start: int
    stop: int


_STAGES = tuple(ChannelStage)


def deal_in_flight(
    handles: Iterable[ChannelStateHandle], old: KeyGroupLayout, new: KeyGroupLayout, *, only_first: bool
) -> list[list[BatchRun]]:
    """Return the records in flight to one operator that each of its new subtasks reads, in order.

    Of a slice with keys a subtask takes only those in its own key groups.

    Args:
        handles: in stored order.
        old: of the operator when they were stored.
        new: of the operator now.
        only_first: subtask 0 gets everything that has no keys.
    """
    ordered = sorted(handles, key=lambda handle: _STAGES.index(handle.stage))
    whole = [
        BatchRun(handle=handle, slice=part, start=0, stop=part.batches)
        for handle in ordered
        for part in handle.slices
    ]
    keyless = [run for run in whole if not run.handle.keyed]
    if only_first:
        dealt = [keyless, *([] for _ in range(1, new.parallelism))]
    elif old.parallelism == new.parallelism:
        dealt = [[run for run in keyless if run.slice.receiver == i] for i in range(new.parallelism)]
    else:
        dealt = _dealt_evenly(keyless, new.parallelism)
    for subtask, runs in enumerate(dealt):
        own = new.groups(subtask)
        runs += [
            run
            for run in whole
            if run.handle.keyed
            and _may_hold(
                old.groups(run.slice.receiver), own, math.gcd(old.max_parallelism, new.max_parallelism)
            )
        ]
    return dealt


def _dealt_evenly(whole: Iterable[BatchRun], parallelism: int) -> list[list[BatchRun]]:
    runs = list(whole)
    size, extras = divmod(sum(run.stop for run in runs), parallelism)
    dealt: list[list[BatchRun]] = []
    for subtask in range(parallelism):
        room = size + (subtask < extras)
        own: list[BatchRun] = []
        while room:
            run = runs.pop(0)
            stop = min(run.start + room, run.stop)
            own.append(replace(run, stop=stop))
            room -= stop - run.start
            if stop < run.stop:
                runs.insert(0, replace(run, start=stop))
        dealt.append(own)
    return dealt


def redistribute(old: Sequence[Iterable[OperatorStateHandle]], parallelism: int) -> Assignment:
    """Return the operator state that each of `parallelism` new subtasks reads.

    Args:
        old: the handles of each old subtask, at most one of a name; its length is the old parallelism.
        parallelism: number of new subtasks, at least 1.

    Raises:
        StateCorruptError: one name is stored with several modes of redistribution.
    """
    copies_by_name: dict[str, dict[int, OperatorStateHandle]] = {}
    for subtask, handles in enumerate(old):
        for handle in handles:
            copies_by_name.setdefault(handle.name, {})[subtask] = handle
    assignment: Assignment = {subtask: [] for subtask in range(parallelism)}
    first = 0  # The subtask that the next extra element goes to, over all split states.
    for name in sorted(copies_by_name):
        copies = copies_by_name[name]
        match _mode(name, copies):
            case Redistribution.SPLIT if len(old) == parallelism:
                _keep(copies, assignment)
            case Redistribution.SPLIT:
                first = _split(list(copies.values()), assignment, first)
            case Redistribution.UNION:
                _unite(list(copies.values()), assignment)
            case Redistribution.BROADCAST:
                _broadcast(copies, len(old), assignment)
    return assignment


def _mode(name: str, copies: dict[int, OperatorStateHandle]) -> Redistribution:
    modes = list(dict.fromkeys(handle.mode for handle in copies.values()))
    if len(modes) > 1:
        raise StateCorruptError(
            "operator state was stored with several modes of redistribution",
            state=name,
            modes=[mode.value for mode in modes],
        )
    return modes[0]


def _whole(handle: OperatorStateHandle) -> list[ElementSlice]:
    count = handle.element_count
    return [ElementSlice(handle=handle, start=0, stop=count)] if count else []


def _keep(copies: dict[int, OperatorStateHandle], assignment: Assignment) -> None:
    for subtask, handle in copies.items():
        assignment[subtask] += _whole(handle)


def _split(handles: list[OperatorStateHandle], assignment: Assignment, first: int) -> int:
    # Deals runs to subtasks from `first` on; returns the first subtask that got no extra element.
    parallelism = len(assignment)
    size, extras = divmod(sum(handle.element_count for handle in handles), parallelism)
    run, room = 0, size + (extras > 0)
    for handle in handles:
        start = 0
        while start < handle.element_count:
            while not room:
                run += 1
                room = size + (run < extras)
            stop = min(start + room, handle.element_count)
            assignment[(first + run) % parallelism].append(
                ElementSlice(handle=handle, start=start, stop=stop)
            )
            room -= stop - start
            start = stop
    return (first + extras) % parallelism


def _unite(handles: list[OperatorStateHandle], assignment: Assignment) -> None:
    elements = [part for handle in handles for part in _whole(handle)]
    for slices in assignment.values():
        slices.extend(elements)


def _broadcast(copies: dict[int, OperatorStateHandle], old_parallelism: int, assignment: Assignment) -> None:
    # A subtask that stored none (it had finished) is stood in for by the first that did.
    stand_in = next(iter(copies.values()))
    for subtask, slices in assignment.items():
        slices.extend(_whole(copies.get(subtask % old_parallelism, stand_in)))
