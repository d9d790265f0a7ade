"""Runs one operator outside of a job: real operator, real state, real snapshots, no slots.

`OperatorHarness` is for tests that look at single steps; `check_operator` runs a function
in every way in which a job may run it, and compares.

Example:
    >>> from raystream import KeyedProcessFunction, ValueStateDescriptor
    >>> class Count(KeyedProcessFunction):
    ...     def open(self, ctx):
    ...         self.seen = ctx.get_state(ValueStateDescriptor("seen", int, default=0))
    ...     def process_element(self, value, ctx):
    ...         seen = self.seen.value() + 1
    ...         self.seen.update(seen)
    ...         yield ctx.current_key, seen
    >>> with OperatorHarness(Count(), key=str.lower) as harness:
    ...     first = harness.process(["a", "b", "A"])
    ...     snapshot = harness.snapshot()
    ...     harness.restore(snapshot, parallelism=3)
    ...     second = harness.process(["A"])
    >>> first, second
    ([('a', 1), ('b', 1), ('a', 2)], [('a', 3)])
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, Self

import cloudpickle

from raystream.api.factories import CallableProcess
from raystream.api.functions import Function, KeyedProcessFunction
from raystream.errors import ConfigError
from raystream.keygroup import check_parallelism, groups_of_subtask, routing_table
from raystream.operators.emission import copy_of, emitting
from raystream.operators.keyed_map import KeyedFilterOperator, KeyedFlatMapOperator, KeyedMapOperator
from raystream.operators.map import FilterOperator, FlatMapOperator, MapOperator
from raystream.operators.operator import Emit, Operator, OperatorContext
from raystream.operators.process import KeyedProcessOperator, ProcessOperator, ReduceOperator
from raystream.protocol.redistribution import holding, redistribute
from raystream.records.batch import RowBatch
from raystream.records.elements import Control
from raystream.runtime.messages import OperatorRestore, OperatorStateSlice
from raystream.runtime.output import EdgeWriter, HashWriter, RebalanceWriter
from raystream.runtime.restore import KeyedOwner, RestoredOperator, read_operator, settle_unregistered
from raystream.state.heap import HeapBackend
from raystream.storage.blobs import SnapshotFiles
from raystream.testing.emitted import EmittedRecords
from raystream.testing.harness_snapshot import UID, FrozenSubtask, HarnessSnapshot, SnapshotInProgress
from raystream.testing.source_run import ManualClock

__all__ = ["HarnessSnapshot", "Operation", "OperatorHarness"]

Operation = Literal["map", "flat_map", "filter", "process", "reduce"]
"""The method of a stream that would take the function."""

MAX_PARALLELISM = 128
"""Number of key groups, unless the harness is told another one."""

_OPERATORS: dict[str, type[Operator]] = {
    "map": MapOperator,
    "flat_map": FlatMapOperator,
    "filter": FilterOperator,
    "process": ProcessOperator,
    "reduce": ReduceOperator,
}
_WITH_STATE: dict[str, type[Operator]] = {
    "map": KeyedMapOperator,
    "flat_map": KeyedFlatMapOperator,
    "filter": KeyedFilterOperator,
    "process": KeyedProcessOperator,
    "reduce": ReduceOperator,
}
_METHODS: dict[str, Operation] = {
    "process_element": "process",
    "map": "map",
    "flat_map": "flat_map",
    "filter": "filter",
    "reduce": "reduce",
}


class OperatorHarness:
    """One operator with `parallelism` subtasks, driven by a test.

    Records find their subtask as in a job: by the group of their key, or dealt out in turn where
    there is no key.  Every subtask has a copy of the function, made as a job makes it, so what
    the function keeps in itself is not seen from outside; and what cannot be copied is found.

    Args:
        function: an object of a function class, or a plain callable.
        key: returns the key of a record; makes the stream keyed.
        parallelism: number of subtasks.
        backend: where keyed state is kept, `hashmap`.
        operation: what a plain callable is for; `map` where there is no key.
        max_parallelism: number of key groups, the most that `parallelism` can be.
        copy_records: hand over copies of records, as with `pipeline.copy-records`.

    Attributes:
        outputs: every record emitted so far, also before a `restore`; may be cleared.
        side_outputs: the same for side outputs, by tag.

    Raises:
        ConfigError: the arguments do not fit each other.
        UserCodeError: the function's `open` raised.
    """

    def __init__(
        self,
        function: Any,
        *,
        key: Callable[[Any], Any] | None = None,
        parallelism: int = 1,
        backend: str = "hashmap",
        operation: Operation | None = None,
        max_parallelism: int = MAX_PARALLELISM,
        copy_records: bool = False,
    ) -> None:
        if backend != "hashmap":
            raise ConfigError("there is no such state backend", hint='use backend="hashmap"', backend=backend)
        self._key = key
        self._max_parallelism = max_parallelism
        self._copy_records = copy_records
        self._operation = operation or _operation_of(function, keyed=key is not None)
        self._operator = _operator_of(function, self._operation, keyed=key is not None)
        self._name = getattr(function, "__name__", type(function).__name__)
        self._shipped = _shipped(function, self._name)
        self._watch = EmittedRecords()
        self._attempt = 0
        self._checkpoint_id = 0
        self.outputs: list[Any] = []
        self.side_outputs: dict[str, list[Any]] = {}
        self._subtasks: list[_Subtask] = []
        self._begin(parallelism, None)

    @property
    def parallelism(self) -> int:
        """Number of subtasks."""
        return len(self._subtasks)

    def process(self, values: Iterable[Any]) -> list[Any]:
        """Process records as one batch; return what was emitted to the main output.

        Raises:
            AssertionError: the function has changed a record after it had emitted it.
            UserCodeError: the function or the key selector raised, or a key has no stable encoding.
        """
        assert self._subtasks, "harness is closed"
        before = len(self.outputs)
        batch = RowBatch(list(values))
        if batch.values:
            self._writer.write(batch)
            self._watch.check()
        return self.outputs[before:]

    def snapshot(self) -> HarnessSnapshot:
        """Return the state of all subtasks, as a checkpoint would hold it.

        Raises:
            StateError: a value of the state does not have its declared type, or does not pickle.
        """
        return self.begin_snapshot().finish()

    def begin_snapshot(self) -> SnapshotInProgress:
        """Take only the synchronous part of a snapshot; records may be processed before it is finished."""
        assert self._subtasks, "harness is closed"
        self._checkpoint_id += 1
        return SnapshotInProgress(
            [
                FrozenSubtask.of(subtask.operator, subtask.keyed, self._checkpoint_id)
                for subtask in self._subtasks
            ]
        )

    def restore(self, snapshot: HarnessSnapshot, parallelism: int | None = None) -> None:
        """Start again, with fresh copies of the function, from a snapshot.

        Args:
            snapshot: of this harness, or of another one with the same operator.
            parallelism: number of subtasks from now on; the same as before by default.

        Raises:
            StateRestoreError: the snapshot has state that the function does not register, or that
                does not fit what it registers.
        """
        count = len(self._subtasks) if parallelism is None else parallelism
        self.close()
        self._begin(count, snapshot)

    def close(self) -> None:
        """Close the function in every subtask; may be called again."""
        subtasks, self._subtasks = self._subtasks, []
        for subtask in subtasks:
            subtask.operator.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _begin(self, parallelism: int, snapshot: HarnessSnapshot | None) -> None:
        check_parallelism(parallelism, self._max_parallelism)
        self._attempt += 1
        for index, restore in enumerate(self._restores(parallelism, snapshot)):
            self._subtasks.append(self._subtask(index, parallelism, restore))
        for subtask in self._subtasks:
            subtask.operator.open()
            settle_unregistered(subtask.operator.context, drop=False)
        for subtask in self._subtasks:
            subtask.operator.start()
        self._writer = self._exchange()

    def _restores(self, parallelism: int, snapshot: HarnessSnapshot | None) -> list[OperatorRestore | None]:
        """Return what each new subtask reads back, as the job's coordinator would deal it out."""
        if snapshot is None:
            return [None] * parallelism
        keyed = [handle for old in snapshot.subtasks for handle in old.keyed]
        operator = redistribute([old.operator for old in snapshot.subtasks], parallelism)
        groups_max = self._max_parallelism
        return [
            OperatorRestore(
                directory="",
                keyed=tuple(
                    holding(
                        keyed,
                        groups_of_subtask(index, groups_max, parallelism),
                        stored_max_parallelism=groups_max,
                        max_parallelism=groups_max,
                    )
                ),
                operator=tuple(
                    OperatorStateSlice(handle=part.handle, start=part.start, stop=part.stop)
                    for part in operator[index]
                ),
            )
            for index in range(parallelism)
        ]

    def _subtask(self, index: int, parallelism: int, restore: OperatorRestore | None) -> "_Subtask":
        function = cloudpickle.loads(self._shipped)
        if self._operation == "process" and not hasattr(function, "process_element"):
            function = CallableProcess(function)
        operator = self._operator(function)  # type: ignore[call-arg]
        keyed = self._keyed_owner(operator, index, parallelism) if self._key is not None else None
        restored = RestoredOperator()
        if restore is not None:
            restored = read_operator(SnapshotFiles(), restore, keyed)
        context = OperatorContext(
            job_id="0" * 32,
            uid=UID,
            name=self._name,
            subtask=index,
            parallelism=parallelism,
            max_parallelism=self._max_parallelism,
            attempt=self._attempt,
            clock=ManualClock(),
            background=_AtOnce(),
            restored=restored.operator_state,
            keyed_backend=None if keyed is None else keyed.backend,
            request_splits=_nothing,
            wake=_nothing,
            wake_at=_nothing,
            tell_client=_nothing,
            deliver=_nothing,
            failed=_raise,
            emitted=copy_of if self._copy_records else self._watch,
        )
        operator.setup(context, self._recorder(self.outputs), _SideOutputs(self._side_recorder))
        return _Subtask(operator, keyed)

    def _keyed_owner(self, operator: Operator, index: int, parallelism: int) -> KeyedOwner | None:
        if not isinstance(operator, ProcessOperator):
            return None
        groups = groups_of_subtask(index, self._max_parallelism, parallelism)
        return KeyedOwner(
            backend=HeapBackend(groups, self._max_parallelism, operator.cursor),
            groups=groups,
            max_parallelism=self._max_parallelism,
        )

    def _exchange(self) -> EdgeWriter:
        channels = [_HandOver(self._given(subtask.operator.process)) for subtask in self._subtasks]
        if self._key is None:
            return RebalanceWriter(channels, first=0)
        return HashWriter(
            channels,
            key_selector=self._key,
            routing=routing_table(self._max_parallelism, len(channels)),
            context=self._subtasks[0].operator.context,
        )

    def _given(self, target: Emit) -> Emit:
        return emitting(target, copy_of) if self._copy_records else target

    def _recorder(self, records: list[Any]) -> Emit:
        return lambda batch: records.extend(batch.values)

    def _side_recorder(self, tag: str) -> Emit:
        return self._recorder(self.side_outputs.setdefault(tag, []))


@dataclass(frozen=True, slots=True)
class _Subtask:
    operator: Operator
    keyed: KeyedOwner | None


class _HandOver:
    """The sending end of a channel that hands batches over at once."""

    has_room = True

    def __init__(self, target: Emit) -> None:
        self.send = target

    def send_control(self, control: Control) -> None:
        raise AssertionError("a harness sends no control elements")

    def flush(self) -> bool:
        return False

    def granted(self, size_bytes: int) -> None:
        raise AssertionError("a harness has no credit")


class _SideOutputs(dict[str, Emit]):
    """Takes whatever tag a function emits to."""

    def __init__(self, make: Callable[[str], Emit]) -> None:
        super().__init__()
        self._make = make

    def __contains__(self, tag: object) -> bool:
        return True

    def __missing__(self, tag: str) -> Emit:
        emit = self[tag] = self._make(tag)
        return emit


class _AtOnce:
    """Background work that is done before `submit` returns."""

    def submit(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        try:
            result = work()
        except Exception as error:
            result = error
        done(result)


def _shipped(function: Any, name: str) -> bytes:
    try:
        data: bytes = cloudpickle.dumps(function)
    except Exception as error:
        raise ConfigError(
            "function of an operator cannot be copied to its subtasks",
            hint="create what does not pickle in open(), which runs in the subtask",
            operator=name,
            cause=f"{type(error).__name__}: {error}",
        ) from error
    return data


def _nothing(*args: object) -> None:
    pass


def _raise(error: Exception) -> None:
    raise error


def _operation_of(function: Any, *, keyed: bool) -> Operation:
    for method, operation in _METHODS.items():
        if hasattr(function, method):
            return operation
    if keyed:
        raise ConfigError(
            "harness cannot tell what a plain callable on a keyed stream is for",
            hint='pass operation="process" or operation="reduce"',
            function=getattr(function, "__name__", repr(function)),
        )
    return "map"


def _operator_of(function: Any, operation: Operation, *, keyed: bool) -> type[Operator]:
    if not keyed and (operation == "reduce" or isinstance(function, KeyedProcessFunction)):
        raise ConfigError(
            "function needs a keyed stream",
            hint="pass key=, the function that key_by would get",
            function=type(function).__name__,
        )
    with_state = keyed and (operation == "process" or isinstance(function, Function))
    return (_WITH_STATE if with_state else _OPERATORS)[operation]
