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

from raystream.config.options import BackendConfig, BackendType
from raystream.errors import ConfigError
from raystream.keygroup import check_parallelism, groups_of_subtask, routing_table
from raystream.operators.dead_letters import DEAD_LETTERS, DeadLetter
from raystream.operators.emission import copy_of, emitting
from raystream.operators.operator import Emit, Operator, OperatorContext
from raystream.operators.process import ProcessOperator
from raystream.protocol.redistribution import holding, redistribute
from raystream.records.batch import RowBatch
from raystream.records.elements import Watermark
from raystream.runtime.messages import OperatorRestore, OperatorStateSlice
from raystream.runtime.output import BroadcastWriter, EdgeWriter, HashWriter, RebalanceWriter
from raystream.runtime.restore import KeyedOwner, RestoredOperator, found_states, read_operator
from raystream.runtime.restored_states import joined, refusal
from raystream.state.descriptor import MapStateDescriptor
from raystream.state.open_backend import BackendOpener
from raystream.storage.blobs import SnapshotFiles
from raystream.testing.emitted import EmittedRecords
from raystream.testing.harness_exchange import HandOver, SideOutputs
from raystream.testing.harness_operators import Operation, OperatorChoice
from raystream.testing.harness_snapshot import UID, FrozenSubtask, HarnessSnapshot, SnapshotInProgress
from raystream.testing.source_run import ManualClock

__all__ = ["HarnessSnapshot", "Operation", "OperatorHarness"]

MAX_PARALLELISM = 128
"""Number of key groups, unless the harness is told another one."""


class OperatorHarness:
    """One operator with `parallelism` subtasks, driven by a test.

    Records find their subtask as in a job: by the group of their key, or dealt out in turn where
    there is no key.  Every subtask has a copy of the function, made as a job makes it, so what
    the function keeps in itself is not seen from outside; and what cannot be copied is found.

    Args:
        function: an object of a function class, or a plain callable.
        key: returns the key of a record; makes the stream keyed.
        key2: the same for the second input of a function with two, which then shares the keyed state.
        broadcast: descriptors of the broadcast states of a function that takes a broadcast stream.
        parallelism: number of subtasks.
        backend: where keyed state is kept, `hashmap` or `rocksdb`.
        operation: what a plain callable is for; `map` where there is no key.
        max_parallelism: number of key groups, the most that `parallelism` can be.
        copy_records: hand over copies of records, as with `pipeline.copy-records`.
        on_error: whether a record on which the function raises ends the test, or goes to `dead_letters`.

    Attributes:
        outputs: every record emitted so far, also before a `restore`; may be cleared.
        side_outputs: the same for side outputs, by tag.
        dead_letters: the same for the records on which the function raised.

    Raises:
        ConfigError: the arguments do not fit each other.
        UserCodeError: the function's `open` raised.
    """

    def __init__(
        self,
        function: Any,
        *,
        key: Callable[[Any], Any] | None = None,
        key2: Callable[[Any], Any] | None = None,
        broadcast: Iterable[MapStateDescriptor[Any, Any]] = (),
        parallelism: int = 1,
        backend: BackendType = "hashmap",
        operation: Operation | None = None,
        max_parallelism: int = MAX_PARALLELISM,
        copy_records: bool = False,
        on_error: Literal["fail", "dead-letter"] = "fail",
    ) -> None:
        self._choice = OperatorChoice(function, operation, keyed=key is not None, broadcast=tuple(broadcast))
        self._keys = (key, key2)
        if self._choice.shares_keys and (key is None) != (key2 is None):
            raise ConfigError("one input has keys and the other has none", hint="pass both key= and key2=")
        self._max_parallelism = max_parallelism
        self._copy_records = copy_records
        self._makes_dead_letters = on_error == "dead-letter"
        self._clock = ManualClock()
        self._backends = BackendOpener(BackendConfig(type=backend), self._clock)
        self._watch = EmittedRecords()
        self._attempt = 0
        self._checkpoint_id = 0
        self.outputs: list[Any] = []
        self.side_outputs: dict[str, list[Any]] = {}
        self.dead_letters: list[DeadLetter] = []
        self._subtasks: list[_Subtask] = []
        self._begin(parallelism, None)

    @property
    def parallelism(self) -> int:
        """Number of subtasks."""
        return len(self._subtasks)

    @property
    def metrics(self) -> list[dict[str, float]]:
        """What the function counts with `ctx.metrics`, of each subtask, by the name that is exported."""
        now_ms = self._clock.monotonic_ms()
        return [dict(subtask.operator.context.metrics.values(now_ms)) for subtask in self._subtasks]

    def process(self, values: Iterable[Any], *, timestamps: Iterable[int] | None = None) -> list[Any]:
        """Process records as one batch; return what was emitted to the main output.

        Args:
            values: the records.
            timestamps: ms since the epoch of each, if they have any.

        Raises:
            AssertionError: the function has changed a record after it had emitted it.
            UserCodeError: the function or the key selector raised, or a key has no stable encoding.
        """
        return self._process(0, values, timestamps)

    def process2(self, values: Iterable[Any], *, timestamps: Iterable[int] | None = None) -> list[Any]:
        """Do as `process` at the second input of a function that has two; a broadcast stream is one.

        Raises as `process`.
        """
        return self._process(1, values, timestamps)

    def watermark(self, timestamp_ms: int) -> list[Any]:
        """Let event time come to here in all subtasks; return what timers emitted to the main output.

        Raises:
            UserCodeError: `on_timer` raised.
        """
        assert self._subtasks, "harness is closed"
        before = len(self.outputs)
        for subtask in self._subtasks:
            subtask.operator.process_event_time(Watermark(timestamp_ms))
            while subtask.operator.catching_up:
                subtask.operator.catch_up()
        self._watch.check()
        return self.outputs[before:]

    def processing_time(self, now_ms: int) -> list[Any]:
        """Let the wall clock come to here; return what timers emitted to the main output.

        Timers that were due before a `restore` fire too.

        Raises:
            ConfigError: the clock is past this time already.
            UserCodeError: `on_timer` raised.
        """
        assert self._subtasks, "harness is closed"
        if now_ms < self._clock.now_ms:
            raise ConfigError("clock cannot run back", now_ms=self._clock.wall_ms(), wanted_ms=now_ms)
        before = len(self.outputs)
        self._clock.now_ms = float(now_ms)
        for subtask in self._subtasks:
            while subtask.alarm.due(now_ms):
                subtask.operator.time_reached()
        self._watch.check()
        return self.outputs[before:]

    def _process(self, number: int, values: Iterable[Any], timestamps: Iterable[int] | None) -> list[Any]:
        assert self._subtasks, "harness is closed"
        assert number < len(self._writers), "function has one input"
        before = len(self.outputs)
        batch = RowBatch(list(values), None if timestamps is None else list(timestamps))
        if batch.values:
            self._writers[number].write(batch)
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
        try:
            for subtask in subtasks:
                subtask.operator.close()
        finally:
            self._backends.close()

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
        found = found_states((subtask.operator.context for subtask in self._subtasks), drop=False)
        misfit = refusal(joined(found), drop=False)
        if misfit is not None:
            raise misfit
        for subtask in self._subtasks:
            subtask.operator.start()
        self._writers = [self._exchange(number) for number in range(self._choice.input_count)]

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
                states=tuple(dict.fromkeys(info for old in snapshot.subtasks for info in old.states)),
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
        operator = self._choice.make()
        keyed = self._keyed_owner(operator, index, parallelism) if self._keys[0] is not None else None
        restored = RestoredOperator()
        if restore is not None:
            restored = read_operator(SnapshotFiles(), restore, keyed)
        alarm = _Alarm()
        context = OperatorContext(
            job_id="0" * 32,
            uid=UID,
            name=self._choice.name,
            subtask=index,
            parallelism=parallelism,
            max_parallelism=self._max_parallelism,
            attempt=self._attempt,
            clock=self._clock,
            background=_AtOnce(),
            restored=restored.operator_state,
            operator_store=restored.store,
            select_inputs=_nothing,
            keyed_backend=None if keyed is None else keyed.backend,
            request_splits=_nothing,
            wake=_nothing,
            wake_at=alarm.set,
            tell_client=_nothing,
            deliver=_nothing,
            failed=_raise,
            emitted=copy_of if self._copy_records else self._watch,
        )
        operator.setup(context, self._recorder(self.outputs), self._side_outputs())
        return _Subtask(operator, keyed, alarm)

    def _keyed_owner(self, operator: Operator, index: int, parallelism: int) -> KeyedOwner | None:
        if not isinstance(operator, ProcessOperator):
            return None
        groups = groups_of_subtask(index, self._max_parallelism, parallelism)
        return KeyedOwner(
            backend=self._backends.open(groups, self._max_parallelism, operator.cursor),
            groups=groups,
            max_parallelism=self._max_parallelism,
        )

    def _exchange(self, number: int) -> EdgeWriter:
        channels = [HandOver(self._given(subtask.operator.inputs[number])) for subtask in self._subtasks]
        key = self._keys[number]
        if number and self._choice.broadcasts:
            return BroadcastWriter(channels)
        if key is None:
            return RebalanceWriter(channels, first=0)
        return HashWriter(
            channels,
            key_selector=key,
            routing=routing_table(self._max_parallelism, len(channels)),
            context=self._subtasks[0].operator.context,
        )

    def _given(self, target: Emit) -> Emit:
        return emitting(target, copy_of) if self._copy_records else target

    def _recorder(self, records: list[Any]) -> Emit:
        return lambda batch: records.extend(batch.values)

    def _side_outputs(self) -> SideOutputs:
        return SideOutputs(self._side_recorder, dead_letters=self._makes_dead_letters)

    def _side_recorder(self, tag: str) -> Emit:
        if tag == DEAD_LETTERS:
            return self._recorder(self.dead_letters)
        return self._recorder(self.side_outputs.setdefault(tag, []))


@dataclass(frozen=True, slots=True)
class _Subtask:
    operator: Operator
    keyed: KeyedOwner | None
    alarm: "_Alarm"


class _Alarm:
    """When an operator wants to be told that time has come."""

    def __init__(self) -> None:
        self._at_ms: float | None = None

    def set(self, at_ms: float) -> None:
        self._at_ms = at_ms if self._at_ms is None else min(at_ms, self._at_ms)

    def due(self, now_ms: float) -> bool:
        """Return True once when it was set for now or before."""
        if self._at_ms is None or self._at_ms > now_ms:
            return False
        self._at_ms = None
        return True


class _AtOnce:
    """Background work that is done before `submit` returns."""

    def submit(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        try:
            result = work()
        except Exception as error:
            result = error
        done(result)


def _nothing(*args: object) -> None:
    pass


def _raise(error: Exception) -> None:
    raise error
