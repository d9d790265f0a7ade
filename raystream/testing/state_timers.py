"""Contract of timers, which are keyed state of raystream's own: they must be right on every backend."""

from raystream.state.descriptor import EVENT_TIMERS, PROCESSING_TIMERS
from raystream.testing.state_rows import row
from raystream.testing.state_stories import Stage, Story, StoryContract, Tell


class TimerContract(StoryContract):
    """Timers of a key, a namespace and a time."""

    @row("timers.one-each")
    def test_timer_fires_once_for_its_key_namespace_and_time_however_often_it_is_set(
        self, tell: Tell
    ) -> None:
        def story(stage: Stage) -> Story:
            for _ in range(3):
                for namespace in (None, (0, 10), (5, 15)):
                    stage.timers(EVENT_TIMERS, namespace).register(10)
                stage.timers(EVENT_TIMERS).register(20)
                yield
            fired = stage.fired(EVENT_TIMERS, 15)
            assert sorted(fired, key=repr) == [(10, (0, 10)), (10, (5, 15)), (10, None)]
            yield
            assert stage.fired(EVENT_TIMERS, 15) == []
            yield
            assert stage.fired(EVENT_TIMERS, 20) == [(20, None)]

        tell(story)

    @row("timers.domains")
    def test_event_time_and_processing_time_have_timers_of_their_own(self, tell: Tell) -> None:
        def story(stage: Stage) -> Story:
            stage.timers(EVENT_TIMERS).register(10)
            stage.timers(PROCESSING_TIMERS).register(10)
            yield
            assert stage.fired(EVENT_TIMERS, 10) == [(10, None)]
            yield
            assert stage.fired(EVENT_TIMERS, 10) == []
            yield
            assert stage.fired(PROCESSING_TIMERS, 10) == [(10, None)]

        tell(story)

    @row("timers.order", "timers.restored")
    def test_timers_fire_in_the_order_of_time(self, tell: Tell) -> None:
        def story(stage: Stage) -> Story:
            for time_ms in (30, 10, 50, 20, 40):
                stage.timers(EVENT_TIMERS).register(time_ms)
                yield
            assert stage.fired(EVENT_TIMERS, 30) == [(10, None), (20, None), (30, None)]
            yield
            assert stage.fired(EVENT_TIMERS, 50) == [(40, None), (50, None)]

        tell(story)

    @row("timers.delete-missing")
    def test_deleted_timer_does_not_fire_and_deleting_a_missing_one_does_nothing(self, tell: Tell) -> None:
        def story(stage: Stage) -> Story:
            stage.timers(EVENT_TIMERS).register(10)
            stage.timers(EVENT_TIMERS).register(20)
            yield
            stage.timers(EVENT_TIMERS).delete(15)
            stage.timers(EVENT_TIMERS, (0, 10)).delete(20)
            stage.timers(EVENT_TIMERS).delete(10)
            stage.timers(EVENT_TIMERS).delete(10)
            yield
            assert stage.fired(EVENT_TIMERS, 30) == [(20, None)]
            yield
            stage.timers(EVENT_TIMERS).delete(20)
            stage.timers(EVENT_TIMERS).register(20)
            yield
            assert stage.fired(EVENT_TIMERS, 30) == [(20, None)]

        tell(story)
