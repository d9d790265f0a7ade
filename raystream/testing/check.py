"""Runs a function in every way in which a job may run it, and compares what it emits.

What a function emits must not depend on how its input was cut into batches, on whether
records are copied between operators, or on when a checkpoint was taken and restored.

Source: `TestSupport` of Hazelcast Jet.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from enum import Enum
from itertools import cycle, groupby, islice, product, starmap
from typing import Any

from raystream.records.elements import WATERMARK_MAX_MS
from raystream.state.descriptor import MapStateDescriptor
from raystream.testing.harness import Operation, OperatorHarness

__all__ = ["Second", "check_operator"]

BATCH_SIZES = (1, 7, 1000)
PARALLELISMS = (2, 3, 1)
"""What a keyed operator is rescaled to, one after the other."""


@dataclass(frozen=True, slots=True)
class Second:
    """A record for the second input of the function that is checked."""

    value: Any


class _Restores(Enum):
    """What happens between two batches."""

    NEVER = "never restored"
    ALWAYS = "restored after every batch"
    TWIN = "restored beside the operator that goes on, before every batch"
    RESCALED = "restored after every batch at another parallelism"


@dataclass(frozen=True, slots=True)
class _Way:
    """One way to run the operator."""

    batch_size: int
    copy_records: bool
    restores: _Restores

    def __str__(self) -> str:
        copied = "copied" if self.copy_records else "not copied"
        return f"batches of {self.batch_size}, records {copied}, {self.restores.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subject:
    """What is checked, and what it shall do."""

    function: Any
    key: Callable[[Any], Any] | None
    key2: Callable[[Any], Any] | None
    broadcast: tuple[MapStateDescriptor[Any, Any], ...]
    operation: Operation | None
    values: list[Any]
    expected: list[Any]
    side_outputs: dict[str, list[Any]]

    def harness(self, way: _Way) -> OperatorHarness:
        return OperatorHarness(
            self.function,
            key=self.key,
            key2=self.key2,
            broadcast=self.broadcast,
            operation=self.operation,
            copy_records=way.copy_records,
        )


def check_operator(
    function: Any,
    values: Iterable[Any],
    expected: Iterable[Any],
    *,
    key: Callable[[Any], Any] | None = None,
    key2: Callable[[Any], Any] | None = None,
    broadcast: Iterable[MapStateDescriptor[Any, Any]] = (),
    operation: Operation | None = None,
    side_outputs: Mapping[str, Iterable[Any]] | None = None,
) -> None:
    """Check that a function emits what is expected, however a job runs it.

    Runs it with batches of 1, 7 and 1,000 records; with records handed over as they are and as
    copies; without interruption, restored from a snapshot after every batch, restored from a
    snapshot that is encoded only after the next batch, and, on a keyed stream, restored at
    parallelism 2, 3 and 1 in turn (then the order is that of each subtask, so it is not compared).
    At the end all timers of event time fire, as at the end of a job's input; what they emit, in any
    order, comes last in what is expected.  Records are compared with `==`.

    Args:
        function: as for `OperatorHarness`.
        values: the records that go in; `Second(record)` goes into the second input.
        expected: the records that shall come out, in order.
        key: as for `OperatorHarness`.
        key2: as for `OperatorHarness`.
        broadcast: as for `OperatorHarness`.
        operation: as for `OperatorHarness`.
        side_outputs: what shall come out at side outputs, by tag.

    Raises:
        AssertionError: something else came out, or the function changed a record; says in which way.
        UserCodeError: the function raised.

    Example:
        >>> check_operator(str.split, ["to be", "or"], ["to", "be", "or"], operation="flat_map")
    """
    subject = _Subject(
        function=function,
        key=key,
        key2=key2,
        broadcast=tuple(broadcast),
        operation=operation,
        values=list(values),
        expected=list(expected),
        side_outputs={tag: list(records) for tag, records in (side_outputs or {}).items()},
    )
    for way in starmap(_Way, product(BATCH_SIZES, (False, True), _Restores)):
        if way.restores is not _Restores.RESCALED or key is not None:
            _run(subject, way)


def _run(subject: _Subject, way: _Way) -> None:
    given = deepcopy(subject.values)
    parallelisms = cycle(PARALLELISMS)
    with subject.harness(way) as harness:
        for batch in _batches(given, way.batch_size):
            match way.restores:
                case _Restores.NEVER:
                    _process(harness, batch)
                case _Restores.ALWAYS:
                    _process(harness, batch)
                    harness.restore(harness.snapshot())
                case _Restores.TWIN:
                    _process_beside_twin(subject, way, harness, batch)
                case _Restores.RESCALED:
                    _process(harness, batch)
                    harness.restore(harness.snapshot(), next(parallelisms))
        ordered = way.restores is not _Restores.RESCALED
        fired = harness.watermark(WATERMARK_MAX_MS)
        expected, actual = subject.expected, harness.outputs
        if fired:
            before = len(actual) - len(fired)
            _compare(way, "outputs of the last timers", expected[before:], fired, ordered=False)
            expected, actual = expected[:before], actual[:before]
        _compare(way, "outputs", expected, actual, ordered=ordered)
        for tag in sorted({*subject.side_outputs, *harness.side_outputs}):
            expected = subject.side_outputs.get(tag, [])
            actual = harness.side_outputs.get(tag, [])
            _compare(way, f"side outputs {tag!r}", expected, actual, ordered=ordered)
    if given != subject.values:
        raise AssertionError(f"function changed a record that it was given ({way})")


def _process(harness: OperatorHarness, batch: Sequence[Any]) -> list[Any]:
    """Process records in order, each at its input; return what was emitted to the main output."""
    emitted: list[Any] = []
    for second, records in groupby(batch, lambda record: isinstance(record, Second)):
        if second:
            emitted += harness.process2([record.value for record in records])
        else:
            emitted += harness.process(records)
    return emitted


def _process_beside_twin(
    subject: _Subject, way: _Way, harness: OperatorHarness, batch: Sequence[Any]
) -> None:
    """Process a batch while a snapshot is in progress, and again from that snapshot."""
    again = deepcopy(batch)
    in_progress = harness.begin_snapshot()
    expected = deepcopy(_process(harness, batch))
    with subject.harness(way) as twin:
        twin.restore(in_progress.finish())
        _compare(way, "outputs of a restored twin", expected, _process(twin, again), ordered=True)


def _batches(values: list[Any], size: int) -> Iterator[list[Any]]:
    records = iter(values)
    while batch := list(islice(records, size)):
        yield batch


def _compare(way: _Way, what: str, expected: list[Any], actual: list[Any], *, ordered: bool) -> None:
    if not ordered:
        expected, actual = _without_common(expected, actual)
    if expected == actual:
        return
    pairs = enumerate(zip(expected, actual, strict=False))
    shared = min(len(expected), len(actual))
    first = next((position for position, (one, other) in pairs if one != other), shared)
    raise AssertionError(
        f"{what} differ at {first} ({way}):\n"
        f"  expected {expected[first : first + 5]!r} of {len(expected)}\n"
        f"  got      {actual[first : first + 5]!r} of {len(actual)}"
    )


def _without_common(expected: list[Any], actual: list[Any]) -> tuple[list[Any], list[Any]]:
    """Return what only the one and only the other has; records need not be hashable."""
    left, missing = list(actual), []
    for record in expected:
        try:
            left.remove(record)
        except ValueError:
            missing.append(record)
    return missing, left
