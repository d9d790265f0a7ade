"""Contract of state whose time to live goes by event time: what is now, and what is the time of writing."""

from dataclasses import replace
from typing import Any

import pytest

from raystream.clock import TimeDomain
from raystream.records.elements import WATERMARK_MAX_MS, WATERMARK_MIN_MS
from raystream.state.ttl import StateTtl, TtlCleanup, TtlUpdate, TtlVisibility
from raystream.testing.state_kit import (
    COUNTS,
    ELEMENTS,
    HITS,
    MEAN,
    START_MS,
    TOTAL,
    BackendContract,
    Subtask,
    never,
    read,
    register,
    write,
)
from raystream.testing.state_rows import row

TTL_MS = 100
LIVED = StateTtl(TTL_MS, cleanup=TtlCleanup(entries_per_access=0), time=TimeDomain.EVENT_TIME)
BY_WALL_CLOCK = replace(LIVED, time=TimeDomain.PROCESSING_TIME)

every_kind = pytest.mark.parametrize(
    "kind", [HITS, ELEMENTS, COUNTS, TOTAL, MEAN], ids=lambda descriptor: descriptor.kind.value
)


class EventTimeExpiryContract(BackendContract):
    """What a time to live in event time means."""

    def lived(self, subtask: Subtask, kind: Any, ttl: StateTtl | None = LIVED) -> Any:
        """Register a state of some kind with a time to live."""
        return register(subtask.backend, replace(kind, ttl=ttl))

    def restarted(self, *subtasks: Subtask) -> Subtask:
        """Snapshot subtasks and restore one of them all, much later by the wall clock."""
        snapshots = [self.finish(self.freeze(subtask)) for subtask in subtasks]
        restored = self.make_subtask(snapshots, now_ms=START_MS + 10**9)
        restored.at("k")
        return restored

    @row("ttl.event-time")
    @every_kind
    def test_value_of_a_record_of_0_is_there_at_watermark_99_and_gone_at_100(
        self, subtask: Subtask, kind: Any
    ) -> None:
        state = self.lived(subtask, kind)
        subtask.cursor.timestamp = 0
        write(state, 7)
        subtask.clock.now_ms += 10**9
        subtask.backend.event_time.reached(TTL_MS - 1)
        assert read(state) == 7
        subtask.backend.event_time.reached(TTL_MS)
        assert read(state) is None

    @every_kind
    def test_nothing_expires_before_the_first_watermark(self, subtask: Subtask, kind: Any) -> None:
        state = self.lived(subtask, kind)
        for timestamp in (-(10**12), 10**12, 5 * 10**12):
            subtask.cursor.timestamp = timestamp
            subtask.at(timestamp)
            write(state, 7)
        subtask.clock.now_ms += 10**12
        snapshot = self.freeze(subtask)
        self.finish(snapshot)
        assert snapshot.entries in (None, 3)
        subtask.at(-(10**12))
        assert read(state) == 7

    @every_kind
    def test_what_a_late_record_writes_counts_from_the_watermark(self, subtask: Subtask, kind: Any) -> None:
        state = self.lived(subtask, kind)
        subtask.backend.event_time.reached(500)
        subtask.cursor.timestamp = 10
        write(state, 7)
        assert read(state) == 7
        subtask.backend.event_time.reached(599)
        assert read(state) == 7
        subtask.backend.event_time.reached(600)
        assert read(state) is None

    @every_kind
    def test_what_a_record_without_a_timestamp_writes_counts_from_the_watermark(
        self, subtask: Subtask, kind: Any
    ) -> None:
        state = self.lived(subtask, kind)
        subtask.backend.event_time.reached(500)
        write(state, 7)
        subtask.backend.event_time.reached(599)
        assert read(state) == 7
        subtask.backend.event_time.reached(600)
        assert read(state) is None

    @every_kind
    def test_what_is_written_while_nothing_is_known_of_event_time_counts_from_the_wall_clock(
        self, subtask: Subtask, kind: Any
    ) -> None:
        state = self.lived(subtask, kind)
        write(state, 7)
        subtask.backend.event_time.reached(START_MS + TTL_MS - 1)
        assert read(state) == 7
        subtask.backend.event_time.reached(START_MS + TTL_MS)
        assert read(state) is None

    @every_kind
    def test_a_timer_finds_what_was_there_at_its_time_however_far_the_watermark_has_jumped(
        self, subtask: Subtask, kind: Any
    ) -> None:
        state = self.lived(subtask, kind)
        subtask.cursor.timestamp = 0
        write(state, 7)
        # The watermark that fires these timers is told when they have all fired.
        subtask.cursor.time_domain = TimeDomain.EVENT_TIME
        for timer_ms, expected in ((TTL_MS - 1, 7), (TTL_MS, None)):
            subtask.cursor.timestamp = timer_ms
            assert read(state) == expected
        write(state, 8)
        subtask.cursor.time_domain = subtask.cursor.timestamp = None
        subtask.backend.event_time.reached(2 * TTL_MS - 1)
        assert read(state) == 8
        subtask.backend.event_time.reached(WATERMARK_MAX_MS)
        assert read(state) is None

    @every_kind
    def test_time_of_a_processing_timer_is_no_event_time(self, subtask: Subtask, kind: Any) -> None:
        state = self.lived(subtask, kind)
        subtask.backend.event_time.reached(500)
        subtask.cursor.time_domain, subtask.cursor.timestamp = TimeDomain.PROCESSING_TIME, 10**12
        write(state, 7)
        assert read(state) == 7
        subtask.backend.event_time.reached(600)
        assert read(state) is None

    @every_kind
    def test_read_by_an_older_record_takes_no_time_from_a_value(self, subtask: Subtask, kind: Any) -> None:
        state = self.lived(subtask, kind, replace(LIVED, update=TtlUpdate.ON_READ_AND_WRITE))
        for timestamp in (400, 300):
            subtask.cursor.timestamp = timestamp
            write(state, 7) if timestamp == 400 else read(state)
        subtask.backend.event_time.reached(499)
        subtask.cursor.timestamp = None
        assert read(state) == 7
        subtask.backend.event_time.reached(598)
        assert read(state) == 7

    @every_kind
    def test_expired_value_may_be_returned_once_in_event_time_too(self, subtask: Subtask, kind: Any) -> None:
        once = replace(LIVED, visibility=TtlVisibility.RETURN_EXPIRED_IF_NOT_CLEANED_UP)
        state = self.lived(subtask, kind, once)
        subtask.cursor.timestamp = 0
        write(state, 7)
        subtask.backend.event_time.reached(TTL_MS)
        assert read(state) == 7
        assert read(state) is None

    # ---- snapshots ----

    @every_kind
    def test_snapshot_leaves_out_what_had_expired_in_each_domain(self, subtask: Subtask, kind: Any) -> None:
        state = self.lived(subtask, kind)
        other = register(subtask.backend, replace(kind, name="by wall clock", ttl=BY_WALL_CLOCK))
        for key, timestamp in (("old", 0), ("young", 50)):
            subtask.at(key)
            subtask.cursor.timestamp = timestamp
            write(state, 7)
            write(other, 7)
            subtask.clock.now_ms += 60
        subtask.backend.event_time.reached(TTL_MS)
        snapshot = self.freeze(subtask)
        subtask.backend.event_time.reached(10 * TTL_MS)  # The snapshot is of the time of its barrier.
        restored = self.make_subtask([self.finish(snapshot)], now_ms=0)
        assert snapshot.entries in (None, 2)
        for descriptor in (kind, replace(kind, name="by wall clock")):
            register(restored.backend, descriptor)
            assert [key for _, key, _ in restored.backend.entries(descriptor.name)] == ["young"]

    @every_kind
    def test_restore_makes_nothing_younger_and_nothing_older(self, subtask: Subtask, kind: Any) -> None:
        state = self.lived(subtask, kind)
        subtask.cursor.timestamp = 0
        write(state, 7)
        subtask.backend.event_time.reached(60)
        for watermark_ms, expected in ((99, 7), (100, None)):
            restored = self.restarted(subtask)
            again = self.lived(restored, kind)
            assert restored.backend.event_time.now_ms() == 60
            assert read(again) == 7
            restored.backend.event_time.reached(5)
            restored.backend.event_time.reached(watermark_ms)
            assert read(again) == expected

    def test_event_time_goes_on_from_the_lowest_watermark_of_the_restored_snapshots(self) -> None:
        subtasks = [self.make_subtask() for _ in range(3)]
        for watermark_ms, subtask in zip((70, 50, 60), subtasks, strict=True):
            subtask.backend.event_time.reached(watermark_ms)
        assert self.restarted(*subtasks).backend.event_time.now_ms() == 50
        restored = self.restarted(*subtasks, self.make_subtask())
        assert restored.backend.event_time.now_ms() == WATERMARK_MIN_MS

    def test_end_of_event_time_is_not_where_a_restored_job_goes_on(self, subtask: Subtask) -> None:
        subtask.backend.event_time.reached(WATERMARK_MAX_MS)
        assert self.restarted(subtask).backend.event_time.now_ms() == WATERMARK_MIN_MS

    # ---- other declarations ----

    @pytest.mark.parametrize("before", [None, BY_WALL_CLOCK], ids=["no time to live", "processing time"])
    @every_kind
    def test_event_time_switched_on_counts_from_the_restore(
        self, subtask: Subtask, kind: Any, before: StateTtl | None
    ) -> None:
        write(self.lived(subtask, kind, before), 7)
        subtask.backend.event_time.reached(500)
        state = self.lived(restored := self.restarted(subtask), kind)
        restored.backend.event_time.reached(599)
        assert read(state) == 7
        restored.backend.event_time.reached(600)
        assert read(state) is None

    @every_kind
    def test_processing_time_switched_on_counts_from_the_restore(self, subtask: Subtask, kind: Any) -> None:
        subtask.cursor.timestamp = 0
        write(self.lived(subtask, kind), 7)
        state = self.lived(restored := self.restarted(subtask), kind, BY_WALL_CLOCK)
        restored.clock.now_ms += TTL_MS - 1
        assert read(state) == 7
        restored.clock.now_ms += 1
        assert read(state) is None

    @every_kind
    def test_event_time_switched_off_keeps_what_was_alive_for_ever(self, subtask: Subtask, kind: Any) -> None:
        subtask.cursor.timestamp = 0
        write(self.lived(subtask, kind), 7)
        state = self.lived(restored := self.restarted(subtask), kind, None)
        restored.backend.event_time.reached(10**15)
        assert read(state) == 7

    @every_kind
    def test_longer_ttl_keeps_what_was_alive_and_nothing_else_wherever_each_watermark_was(
        self, kind: Any
    ) -> None:
        subtasks = [self.make_subtask(subtask=n, parallelism=2) for n in range(2)]
        for watermark_ms, subtask in zip((110, 160), subtasks, strict=True):
            state = self.lived(subtask, kind)
            for key in range(40):
                subtask.at(key)
                subtask.cursor.timestamp = key * 3
                if subtask.group(key) // 8 == subtasks.index(subtask):
                    write(state, key)
            subtask.backend.event_time.reached(watermark_ms)
        restored = self.restarted(*subtasks)
        self.lived(restored, kind, replace(LIVED, ttl=1000))
        alive = {key for key in range(40) if key * 3 > (10, 60)[restored.group(key) // 8]}
        assert {key for _, key, _ in restored.backend.entries(kind.name)} == alive

    @every_kind
    def test_what_is_written_after_the_end_of_event_time_was_restored_lives(
        self, subtask: Subtask, kind: Any
    ) -> None:
        subtask.cursor.timestamp = 0
        write(self.lived(subtask, kind), 7)
        subtask.backend.event_time.reached(WATERMARK_MAX_MS)
        state = self.lived(restored := self.restarted(subtask), kind)
        assert read(state) is None
        restored.cursor.timestamp = 10
        write(state, 8)
        assert read(state) == 8

    # ---- clean-up ----

    @row("ttl.event-time")
    @every_kind
    def test_keys_that_are_never_read_again_go_with_the_watermark(self, subtask: Subtask, kind: Any) -> None:
        state = self.lived(subtask, kind, replace(LIVED, cleanup=TtlCleanup()))
        for n in range(100):
            subtask.at(n)
            subtask.cursor.timestamp = n
            write(state, n)
        subtask.at("k")
        subtask.cursor.timestamp = 1000
        for _ in range(100):
            write(state, 1)
        self.clean_up(subtask.backend)
        assert self.count_held(subtask.backend, kind.name) == 101
        subtask.backend.event_time.reached(TTL_MS + 49)
        for _ in range(100):
            write(state, 1)
        self.clean_up(subtask.backend)
        assert self.count_held(subtask.backend, kind.name) == 51
        subtask.backend.event_time.reached(TTL_MS + 99)
        assert self.freeze(subtask).advance(never)
