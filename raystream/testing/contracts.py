"""Test classes for sources and sinks of your own: what raystream relies on, as tests.

Derive a test class, say how to make the source or sink, and let pytest collect it:

    class TestOrders(SourceContract):
        def source(self):
            return OrdersSource("tests/orders.db")

        def expected(self):
            return [("order", n) for n in range(100)]

The contracts drive readers, writers and committers exactly as a job does, with seeded
random choices: how much is polled, when checkpoints happen, when everything dies and
with which parallelism it comes back.  A failure names the seed.

The contract of a keyed state backend needs pytest and stands in `raystream.testing.state_contracts`.
"""

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import cloudpickle

from raystream.operators.sink import Sink, WriterContext
from raystream.operators.source import EnumeratorContext, Source
from raystream.testing.sink_run import SinkSubtask
from raystream.testing.source_run import ReaderRun, SourceRun, SourceSnapshot, deal_evenly

__all__ = ["SinkContract", "SourceContract"]

STEPS_MAX = 200_000
"""Polls after which a source that should have ended counts as stuck."""


class SourceContract(ABC):
    """What a source promises.  Subclasses provide `source` and `expected`.

    A source that is not bounded is read until `expected` has come and it is silent.
    """

    seeds: Sequence[int] = range(20)
    parallelism_max = 4

    @abstractmethod
    def source(self) -> Source:
        """Return the source under test; called several times in a test, each time for the same input."""

    @abstractmethod
    def expected(self) -> list[Any]:
        """Return all its records, in any order."""

    def test_every_record_comes_exactly_once_whatever_is_polled(self) -> None:
        """Readers of every parallelism, random batch limits."""
        for seed in self.seeds:
            rng = random.Random(seed)
            run = SourceRun(self._shipped(), 1 + seed % self.parallelism_max, rng)
            self._read_to_the_end(run)
            run.close()
            assert _canonical(run.records) == _canonical(self.expected()), f"seed {seed}"

    def test_every_record_comes_exactly_once_across_crashes_and_rescaling(self) -> None:
        """After a crash the source goes on from the last checkpoint, perhaps with another parallelism."""
        for seed in self.seeds:
            records = self._read_with_crashes(random.Random(seed))
            assert _canonical(records) == _canonical(self.expected()), f"seed {seed}"

    def test_order_within_a_split_survives_restores(self) -> None:
        """A split read in small pieces, restored again and again, gives what it gives when read at once."""
        for seed in self.seeds:
            rng = random.Random(seed)
            source = self._shipped()
            for split in _all_splits(source):
                at_once = ReaderRun(source)
                at_once.reader.add_splits([split])
                at_once.reader.no_more_splits()
                assert self._read_in_pieces(source, split, rng) == at_once.read_all(), f"seed {seed}"
                at_once.close()

    def test_a_reader_of_splits_says_of_each_batch_whose_it_is(self) -> None:
        """What it names with the batches is what each split gives alone; what has ended is not in hand."""
        source = self._shipped()
        splits = _all_splits(source)
        together = ReaderRun(source, per_split=True)
        if together.active_splits() is None:
            return  # To watermarks all it reads is one split.
        together.reader.add_splits(splits)
        together.reader.no_more_splits()
        together.read_all()
        alone = []
        for split in splits:
            run = ReaderRun(source, per_split=True)
            run.reader.add_splits([split])
            run.reader.no_more_splits()
            assert len(run.active_splits() or ()) == 1, "a split is in hand as soon as it was added"
            alone.append(run.read_all())
            run.close()
        assert sorted(map(_canonical, together.of_splits.values())) == sorted(
            _canonical(records) for records in alone if records
        )
        assert not together.at_end or not together.active_splits(), "what has ended is not in hand"
        together.close()

    def test_a_reader_without_splits_ends_when_none_will_come(self) -> None:
        """A subtask for which nothing is left does not hold up the job."""
        run = ReaderRun(self._shipped())
        assert run.read_all() == []
        run.reader.no_more_splits()
        assert run.ended(), "a reader without splits must end"
        assert not run.reader.wants_splits, "nothing is left to ask for"
        assert run.reader.snapshot() == []
        run.close()

    def _shipped(self) -> Source:
        """Return the source as a worker gets it."""
        source: Source = cloudpickle.loads(cloudpickle.dumps(self.source()))
        return source

    def _read_to_the_end(self, run: SourceRun) -> None:
        wanted = len(self.expected())
        for _ in range(STEPS_MAX):
            if run.finished(wanted):
                return
            run.step()
        raise AssertionError(f"source did not end: {len(run.records)} of {wanted} records")

    def _read_with_crashes(self, rng: random.Random) -> list[Any]:
        """Return the records that count: those before the checkpoint from which the source went on."""
        durable: list[Any] = []
        snapshot: SourceSnapshot | None = None
        crashes_left = rng.randint(1, 5)
        run = SourceRun(self._shipped(), rng.randint(1, self.parallelism_max), rng)
        wanted = len(self.expected())
        for _ in range(STEPS_MAX):
            if run.finished(wanted - len(durable)):
                run.close()
                return durable + run.records
            run.step()
            if rng.random() < 0.2:
                snapshot = run.snapshot()
                durable += run.records
                run.records = []
            if crashes_left and rng.random() < 0.1:
                crashes_left -= 1
                run.close()
                run = SourceRun(self._shipped(), rng.randint(1, self.parallelism_max), rng, snapshot=snapshot)
        raise AssertionError("source did not end after crashes")

    def _read_in_pieces(self, source: Source, split: bytes, rng: random.Random) -> list[Any]:
        records: list[Any] = []
        splits = [split]
        while splits:
            run = ReaderRun(source)
            run.reader.add_splits(splits)
            run.reader.no_more_splits()
            polls = rng.randint(1, 6)
            done = not all(
                run.poll_once(records, rng.randint(1, 40), rng.choice((1, 64, 1 << 20))) for _ in range(polls)
            )
            splits = [] if done else run.reader.snapshot()
            run.close()
        return records


class SinkContract(ABC):
    """What a transactional sink promises.  Subclasses provide `sink` and `visible`.

    Attributes:
        delivered: payloads that committers passed to the client.
    """

    seeds: Sequence[int] = range(50)

    def setup_method(self) -> None:
        """Begin with an empty client; called by pytest before each test."""
        self.delivered: list[bytes] = []
        self._opened: list[SinkSubtask] = []

    def teardown_method(self) -> None:
        """Close the writers that died in a test without a word; called by pytest after each test."""
        for subtask in self._opened:
            subtask.writer.close()

    @abstractmethod
    def sink(self) -> Sink:
        """Return the sink under test; every call returns one that writes to the same place."""

    @abstractmethod
    def visible(self) -> list[Any]:
        """Return the records that an outside reader sees now, in any order."""

    def record(self, number: int) -> Any:
        """Return a record that stands for a number; different for each."""
        return number

    def test_records_appear_once_when_their_checkpoint_is_complete(self) -> None:
        """42, snapshot 0, 43, snapshot 1, 44, snapshot 2; complete(2), complete(1)."""
        subtask = self.subtask()
        for checkpoint_id, number in enumerate((42, 43, 44)):
            subtask.write(number)
            subtask.snapshot(checkpoint_id)
            self.assert_visible()
        subtask.complete(2)
        subtask.complete(1)
        self.assert_visible(42, 43, 44)

    def test_an_older_completion_leaves_newer_records_out(self) -> None:
        """What was written after a snapshot does not appear with it."""
        subtask = self.subtask()
        subtask.write(1)
        subtask.snapshot(1)
        subtask.write(2)
        subtask.snapshot(2)
        subtask.write(3)
        subtask.complete(1)
        self.assert_visible(1)

    def test_committing_twice_shows_everything_once(self) -> None:
        """A commit whose success was not recorded is repeated."""
        subtask = self.subtask()
        subtask.write(1, 2)
        state = subtask.snapshot(1)
        subtask.complete(1)
        self.subtask(attempt=2, restored=state)
        self.subtask(attempt=3, restored=state)
        self.assert_visible(1, 2)

    def test_restored_records_appear_before_new_ones_are_written(self) -> None:
        """The checkpoint was complete, but the job died before the commit."""
        subtask = self.subtask()
        subtask.write(1)
        state = subtask.snapshot(1)
        subtask.write(2)
        self.subtask(attempt=2, restored=state)
        self.assert_visible(1)

    def test_what_a_dead_attempt_wrote_after_its_checkpoint_never_appears(self) -> None:
        """Neither what was being written nor what was pre-committed for a checkpoint that never was."""
        subtask = self.subtask()
        subtask.write(1)
        state = subtask.snapshot(1)
        subtask.write(2)
        subtask.snapshot(2)
        subtask.write(3)
        again = self.subtask(attempt=2, restored=state)
        again.write(2, 3, 4)
        again.snapshot(3)
        again.complete(3)
        self.assert_visible(1, 2, 3, 4)

    def test_abort_leaves_what_was_pre_committed(self) -> None:
        """Giving up an attempt touches only what was never in a snapshot."""
        subtask = self.subtask()
        subtask.write(1)
        state = subtask.snapshot(1)
        subtask.write(2)
        subtask.writer.abort()
        subtask.writer.close()
        self.assert_visible()
        self.subtask(attempt=2, restored=state)
        self.assert_visible(1)

    def test_close_neither_publishes_nor_removes(self) -> None:
        """The process may end in order between a pre-commit and its commit."""
        subtask = self.subtask()
        subtask.write(1)
        state = subtask.snapshot(1)
        subtask.write(2)
        subtask.writer.close()
        self.assert_visible()
        self.subtask(attempt=2, restored=state)
        self.assert_visible(1)

    def test_nothing_written_is_nothing_to_commit(self) -> None:
        """Idle subtasks leave no trace in snapshots."""
        subtask = self.subtask()
        assert subtask.snapshot(1) == []
        subtask.write(1)
        subtask.snapshot(2)
        subtask.complete(2)
        assert subtask.snapshot(3) == []
        self.assert_visible(1)

    def test_the_end_of_the_input_commits_without_checkpoints(self) -> None:
        """With checkpointing off there is one pre-commit, with id 0."""
        subtask = self.subtask()
        subtask.write(*range(3000))
        subtask.snapshot(0)
        subtask.complete(0)
        self.assert_visible(*range(3000))

    def test_a_snapshot_makes_durable_what_an_aborted_one_did_not(self) -> None:
        """The records of an aborted checkpoint belong to the next one."""
        subtask = self.subtask()
        subtask.write(1)
        subtask.begin_snapshot(1)
        subtask.write(2)
        state = subtask.snapshot(2)
        subtask.writer.close()
        self.subtask(attempt=2, restored=state)
        self.assert_visible(1, 2)

    def test_random_histories_show_every_record_of_complete_checkpoints_once(self) -> None:
        """Random writes, checkpoints, late and lost completions, crashes and other parallelism."""
        first = 0
        for seed in self.seeds:
            first = self._run_history(random.Random(seed), first)

    def subtask(
        self, *, index: int = 0, parallelism: int = 1, attempt: int = 1, restored: Sequence[bytes] = ()
    ) -> SinkSubtask:
        """Open one subtask, commit what it restored and let it start."""
        subtask = self._open(self._context(index, parallelism, attempt), restored)
        subtask.writer.start()
        return subtask

    def assert_visible(self, *numbers: int) -> None:
        """Check what an outside reader sees."""
        assert _canonical(self.visible()) == _canonical(map(self.record, numbers))

    def _run_history(self, rng: random.Random, first: int) -> int:
        """Play one history and return the first number that it did not use."""
        before = self.visible()
        job_id = f"{rng.getrandbits(128):032x}"
        attempt, checkpoint_id, number = 0, 0, first
        complete_states: list[list[bytes]] = [[]]
        complete_stop = first
        for _ in range(rng.randint(1, 4)):
            # Whatever was not in a complete checkpoint is written again by the next attempt.
            attempt, number = attempt + 1, complete_stop
            parallelism = rng.randint(1, 3)
            parts = deal_evenly(complete_states, parallelism)
            contexts = [self._context(i, parallelism, attempt, job_id) for i in range(parallelism)]
            subtasks = [self._open(context, part) for context, part in zip(contexts, parts, strict=True)]
            for subtask in subtasks:
                subtask.writer.start()
            for _ in range(rng.randint(0, 5)):
                for _ in range(rng.randint(0, 4)):
                    rng.choice(subtasks).write(number)
                    number += 1
                checkpoint_id += 1
                states = [subtask.snapshot(checkpoint_id) for subtask in subtasks]
                if rng.random() < 0.7:
                    complete_states, complete_stop = states, number
                    for subtask in subtasks:
                        if rng.random() < 0.8:
                            subtask.complete(checkpoint_id)
            for subtask in subtasks:
                if rng.random() < 0.5:
                    subtask.writer.abort()
                subtask.writer.close()
        for index, part in enumerate(deal_evenly(complete_states, 2)):
            self._open(self._context(index, 2, attempt + 1, job_id), part)
        expected = [*before, *map(self.record, range(first, complete_stop))]
        assert _canonical(self.visible()) == _canonical(expected)
        return number

    def _open(self, context: WriterContext, restored: Sequence[bytes]) -> SinkSubtask:
        """Open a subtask of the sink as a worker gets it."""
        sink: Sink = cloudpickle.loads(cloudpickle.dumps(self.sink()))
        subtask = SinkSubtask(sink, context, self.record, restored)
        self._opened.append(subtask)
        return subtask

    def _context(self, index: int, parallelism: int, attempt: int, job_id: str = "0" * 32) -> WriterContext:
        return WriterContext(
            job_id=job_id,
            uid="sink under test",
            subtask=index,
            parallelism=parallelism,
            attempt=attempt,
            tell_client=lambda _lines: None,
            deliver=self.delivered.append,
        )


def _all_splits(source: Source) -> list[bytes]:
    """Return every split that the enumerator finds at first, for one subtask."""
    context = EnumeratorContext(parallelism=1, max_parallelism=128, restored=False)
    enumerator = source.enumerator(context, None)
    enumerator.discovered(enumerator.discover())
    splits: list[bytes] = []
    while found := enumerator.next_splits(0):
        splits += found
    return splits


def _canonical(records: Any) -> list[str]:
    """Return records in a form that compares without order, also those that do not sort."""
    return sorted(map(repr, records))
