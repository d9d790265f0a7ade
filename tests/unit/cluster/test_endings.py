"""A process that is to die falls silent or is killed until it is dead, and its end is told once."""

import pytest

from raystream.cluster.endings import (
    KILL_GRACE_MS,
    KILL_RETRY_MS,
    KILL_TRIES_MAX,
    RETIRE_WAIT_MS,
    Answer,
    Endings,
)
from raystream.testing.source_run import ManualClock

SLOT = 3
ACTOR, OTHER = "actor", "other"


class Executioner:
    """Runs calls when the test says so.

    Attributes:
        killed: actors, in the order of the calls that kill.
        hangs: the calls never return.
        error: what they raise.
        lives: actors that answer that they live after they were killed.
        retired: what an actor answers that is asked to fall silent; None for no answer.
    """

    def __init__(self, *, retired=Answer.SILENT):
        self.killed, self.told = [], []
        self.hangs, self.error, self.lives = False, None, set()
        self.retired, self.late = retired, []
        self.clock = ManualClock()
        self.endings = Endings(self.clock, self, retire=self.retire, kill=self.kill, ask=self.ask)

    def submit(self, work, done):
        work()
        if not self.hangs:
            done(self.error)

    def retire(self, actor, answered):
        if self.retired is None:
            self.late.append(answered)
        else:
            answered(self.retired)

    def kill(self, actor):
        self.killed.append(actor)

    def ask(self, actor, answered):
        answered(Answer.LIVES if actor in self.lives else Answer.GONE)

    def condemn(self, actor=ACTOR, **flags):
        self.endings.condemn(SLOT, actor, lambda: self.told.append(actor), **flags)

    def after(self, ms):
        self.clock.now_ms += ms
        self.endings.step()


def test_process_that_fell_silent_is_over_as_soon_as_it_is_dead():
    world = Executioner()
    world.condemn()

    assert (world.killed, world.told) == ([ACTOR], [ACTOR])
    assert world.endings.next_deadline_ms() is None


def test_process_that_is_found_dead_is_over_at_once_and_not_killed():
    world = Executioner(retired=Answer.GONE)
    world.condemn()

    assert (world.killed, world.told) == ([], [ACTOR])


def test_process_that_never_had_work_is_not_asked_to_end_it():
    world = Executioner(retired=None)
    world.condemn(silent=True)

    assert (world.late, world.killed, world.told) == ([], [ACTOR], [ACTOR])


def test_process_that_does_not_fall_silent_is_killed_at_once_and_over_after_a_grace():
    world = Executioner(retired=Answer.LIVES)
    world.condemn()
    assert (world.killed, world.told) == ([ACTOR], [])
    assert world.endings.next_deadline_ms() == world.clock.now_ms + KILL_GRACE_MS

    world.after(KILL_GRACE_MS - 1)
    assert (world.told, world.endings.awaits(SLOT)) == ([], True)
    world.after(1)

    assert (world.killed, world.told, world.endings.awaits(SLOT)) == ([ACTOR], [ACTOR], False)


def test_stopped_process_is_killed_after_a_while_and_not_over_though_ray_calls_it_dead_at_once():
    world = Executioner(retired=None)
    world.condemn()
    world.after(RETIRE_WAIT_MS - 1)
    assert world.killed == []

    world.after(1)
    assert (world.killed, world.told) == ([ACTOR], [])
    world.late.pop()(Answer.GONE)  # The question before is answered too, by the kill.
    world.after(KILL_GRACE_MS - 1)
    assert world.told == []

    world.after(1)
    assert (world.killed, world.told) == ([ACTOR], [ACTOR])


def test_process_that_falls_silent_late_needs_no_grace():
    world = Executioner(retired=None)
    world.hangs = True
    world.condemn()
    world.after(RETIRE_WAIT_MS)
    world.late.pop()(Answer.SILENT)
    assert world.told == []

    world.hangs = False
    world.after(KILL_RETRY_MS)
    assert world.told == [ACTOR]


@pytest.mark.parametrize("trouble", [{"hangs": True}, {"error": OSError("away")}, {"lives": {ACTOR}}])
def test_process_that_is_not_known_to_be_dead_is_killed_again(trouble, caplog):
    world = Executioner()
    vars(world).update(trouble)
    world.condemn()
    assert world.told == []
    assert world.endings.next_deadline_ms() == world.clock.now_ms + KILL_RETRY_MS

    world.after(KILL_RETRY_MS - 1)
    assert world.killed == [ACTOR]
    world.hangs, world.error, world.lives = False, None, set()
    world.after(1)

    assert (world.killed, world.told) == ([ACTOR, ACTOR], [ACTOR])
    assert "killing it again" in caplog.text


def test_process_that_never_dies_is_given_up_with_an_error_and_nobody_waits_for_it_any_more(caplog):
    world, told = Executioner(), []
    world.lives = {ACTOR}
    world.condemn()
    world.endings.when_all_over(lambda: told.append("all"))
    for _ in range(2 * KILL_TRIES_MAX):
        world.after(KILL_RETRY_MS)

    assert world.killed == [ACTOR] * KILL_TRIES_MAX
    assert (world.told, told) == ([ACTOR], ["all"])
    assert world.endings.next_deadline_ms() is None
    assert "could not be killed" in caplog.text


def test_process_that_is_condemned_twice_dies_once():
    world = Executioner()
    world.hangs = True
    world.condemn()
    world.condemn()
    assert world.killed == [ACTOR]

    world.hangs = False
    world.after(KILL_RETRY_MS)
    assert world.told == [ACTOR]


def test_all_are_waited_for_and_their_end_is_told_once():
    world, told = Executioner(), []
    world.lives = {ACTOR}
    world.condemn(ACTOR)
    world.condemn(OTHER)
    world.endings.when_all_over(lambda: told.append("all"))
    assert (world.told, told) == ([OTHER], [])

    world.lives = set()
    world.after(KILL_RETRY_MS)
    assert told == ["all"]

    world.condemn("later")
    assert told == ["all"]


def test_nothing_is_waited_for_when_nobody_is_to_die():
    world, told = Executioner(), []
    world.endings.when_all_over(lambda: told.append("all"))

    assert told == ["all"]
