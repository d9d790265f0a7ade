"""A process that is to die is killed until it is dead, and its death is told once."""

import pytest

from raystream.cluster.endings import KILL_RETRY_MS, KILL_TRIES_MAX, Endings
from raystream.testing.source_run import ManualClock

SLOT = 3
ACTOR, OTHER = "actor", "other"


class Executioner:
    """Runs calls when the test says so.

    Attributes:
        killed: actors, in the order of the calls that kill.
        hangs: the calls never return.
        error: what they raise.
        lives: actors that answer that they live.
    """

    def __init__(self):
        self.killed, self.told = [], []
        self.hangs, self.error, self.lives = False, None, set()
        self.clock = ManualClock()
        self.endings = Endings(self.clock, self, kill=self.kill, ask=self.ask)

    def submit(self, work, done):
        work()
        if not self.hangs:
            done(self.error)

    def kill(self, actor):
        self.killed.append(actor)

    def ask(self, actor, answered):
        answered(actor not in self.lives)

    def condemn(self, actor=ACTOR):
        self.endings.condemn(SLOT, actor, lambda: self.told.append(actor))

    def after(self, ms):
        self.clock.now_ms += ms
        self.endings.step()


def test_death_is_told_when_it_is_known():
    world = Executioner()
    world.condemn()

    assert (world.killed, world.told) == ([ACTOR], [ACTOR])
    assert world.endings.next_deadline_ms() is None


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


def test_process_that_never_dies_is_given_up_with_an_error(caplog):
    world = Executioner()
    world.lives = {ACTOR}
    world.condemn()
    for _ in range(2 * KILL_TRIES_MAX):
        world.after(KILL_RETRY_MS)

    assert world.killed == [ACTOR] * KILL_TRIES_MAX
    assert world.told == []
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
    world.endings.when_all_dead(lambda: told.append("all"))
    assert (world.told, told) == ([OTHER], [])

    world.lives = set()
    world.after(KILL_RETRY_MS)
    assert told == ["all"]

    world.condemn("later")
    assert told == ["all"]


def test_nothing_is_waited_for_when_nobody_is_to_die():
    world, told = Executioner(), []
    world.endings.when_all_dead(lambda: told.append("all"))

    assert told == ["all"]
