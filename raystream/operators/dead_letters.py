"""Dead letters: records on which the function of an operator raised, beside the stream and not in its way.

    record ─▶ function ─▶ main output, side outputs
                 └─ raises ─▶ what it had emitted for the record is dropped ─▶ DeadLetter ─▶ a side output

An operator has them when something reads its side output `DEAD_LETTERS`, which the graph sees to
where the user asked for it.  They are part of the stream like any other record, so that each
comes as often as a checkpoint lets it: exactly once.  State that the function has changed before
it raised stays changed.

Only what user code raises about a record becomes a letter.  Errors of raystream itself say that the
engine failed and not the record; what is no `Exception`, and `MemoryError`, concerns the whole process.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import compress
from typing import Any

from raystream.errors import KeyTypeError, RaystreamError
from raystream.operators.operator import Operator, OperatorContext
from raystream.operators.user_code import raise_for_record, users_traceback
from raystream.records.batch import RowBatch

logger = logging.getLogger(__name__)

DEAD_LETTERS = "_dead-letters"
"""Tag of the side output."""

TEXT_CHARACTERS_MAX = 10_000
"""Length at which a message, and the beginning of a traceback, are cut off."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record on which user code raised, and everything that is known of it."""

    value: Any
    """The record."""
    error_type: str
    """Name of the exception's class, such as `ValueError`."""
    message: str
    traceback: str
    """As Python prints it, the user's frames only."""
    operator: str
    """Name of the operator."""
    uid: str
    """Uid of the operator."""
    subtask: int
    """0-based index of the subtask that had the record."""
    input: int
    """0-based number of the input through which the record came."""
    key: Any
    """Of the record; None on streams without keys."""
    timestamp: int | None
    """Of the record, ms since the epoch; None when it has none."""


class DeadLetters:
    """Makes the dead letters of one operator subtask.

    Attributes:
        count: letters made since the start of the attempt.
        whole: returns all that a function emits for one record, or raises what it raises on the way.
    """

    def __init__(self, context: OperatorContext) -> None:
        self.count = 0
        self._context = context
        emitted = context.emitted
        self.whole: Callable[[Iterable[Any]], list[Any]] = (
            list if emitted is None else lambda records: [emitted(record) for record in records]
        )

    def call_for_each(
        self, call: Callable[[Any], Any], batch: RowBatch
    ) -> tuple[list[Any], RowBatch, RowBatch | None]:
        """Call a function for each record, with the loop in C between two that fail.

        Returns:
            The results, the records that have one, and the letters of the others if there are any.

        Raises:
            UserCodeError: the function raised what makes no letter.
        """
        results: list[Any] = []
        failed: list[int] = []
        letters: list[DeadLetter] = []
        records = iter(batch.values)
        while True:
            error: BaseException | None = None
            try:
                results.extend(map(call, records))  # Keeps the results before an error, unlike `list`.
            except BaseException as caught:
                error = caught
            position = len(results) + len(failed)
            if error is None:
                if position == len(batch.values):
                    return results, *_parted(batch, failed, letters)
                error = StopIteration()  # Of the function, which `map` took for its own end.
            value = batch.values[position]
            if not takes(error):
                raise_for_record(error, self._context, value)
            failed.append(position)
            key = None if batch.keys is None else batch.keys[position]
            timestamp = None if batch.timestamps is None else batch.timestamps[position]
            letters.append(self.letter(error, value, key=key, timestamp=timestamp))

    def letter(
        self, error: BaseException, value: Any, *, key: Any, timestamp: int | None, input_number: int = 0
    ) -> DeadLetter:
        """Return the letter of a record, and count it."""
        context = self._context
        self.count += 1
        if self.count == 1:
            logger.warning(
                "record goes to the dead letters, the first one of this subtask",
                extra={"operator": context.name, "subtask": context.subtask},
                exc_info=error,
            )
        return DeadLetter(
            value=value,
            error_type=type(error).__name__,
            message=_message(error),
            traceback=users_traceback(error)[-TEXT_CHARACTERS_MAX:],
            operator=context.name,
            uid=context.uid,
            subtask=context.subtask,
            input=input_number,
            key=key,
            timestamp=timestamp,
        )


def dead_letters_of(operator: Operator) -> DeadLetters | None:
    """Return what makes the dead letters of an operator that was set up; None when nobody reads them."""
    return DeadLetters(operator.context) if DEAD_LETTERS in operator.emit_side else None


def takes(error: BaseException) -> bool:
    """Return whether what was raised concerns the record alone.

    Code that handles an error of raystream by raising one of its own does not make the engine work again.
    """
    if not isinstance(error, Exception) or isinstance(error, MemoryError):
        return False
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        if _of_the_engine(cause):
            return False
        seen.append(cause)
        cause = cause.__cause__ or cause.__context__
    return True


def _of_the_engine(error: BaseException) -> bool:
    """Return whether raystream says that it could not do its part, or one of its assertions failed."""
    if isinstance(error, RaystreamError):
        return not isinstance(error, KeyTypeError)  # About a key that the function made of the record.
    frames = error.__traceback__
    while frames is not None and frames.tb_next is not None:
        frames = frames.tb_next
    raised_in = "" if frames is None else frames.tb_frame.f_globals.get("__name__", "")
    return isinstance(error, AssertionError) and raised_in.startswith("raystream.")


def _parted(
    batch: RowBatch, failed: list[int], letters: list[DeadLetter]
) -> tuple[RowBatch, RowBatch | None]:
    """Return the records that did not fail, and the letters of those that did."""
    if not failed:
        return batch, None
    kept = [True] * len(batch.values)
    for position in failed:
        kept[position] = False
    values, stamps = list(compress(batch.values, kept)), batch.timestamps
    if stamps is None:
        return RowBatch(values), RowBatch(letters)
    return RowBatch(values, list(compress(stamps, kept))), RowBatch(letters, [stamps[n] for n in failed])


def _message(error: BaseException) -> str:
    try:
        return str(error)[:TEXT_CHARACTERS_MAX]
    except Exception as own:
        return f"<message that raised {type(own).__name__}>"
