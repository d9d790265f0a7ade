"""A loop that is held up is told from one that waits and from one that works."""

from threading import Event, Thread

import pytest

from raystream.cluster.vitals import HELD_MS_MIN, LoopThread, LoopWatch, resident_bytes, stack_of
from raystream.errors import RaystreamError


class Loop:
    """A loop as its watch sees it, and the clock of both."""

    def __init__(self) -> None:
        self.rounds = 0
        self.waiting = False
        self.now_ms = 0.0
        self.watch = LoopWatch(
            self, rounds=lambda: self.rounds, waiting=lambda: self.waiting, stack=lambda: "in user code"
        )

    def monotonic_ms(self) -> float:
        return self.now_ms

    def wall_ms(self) -> int:
        return 0

    def heartbeat_after(self, ms: float):
        self.now_ms += ms
        return self.watch.heartbeat()


def test_loop_in_a_long_call_is_reported_with_its_stack():
    loop = Loop()
    loop.heartbeat_after(0)

    assert loop.heartbeat_after(HELD_MS_MIN - 1).stack == ""
    held = loop.heartbeat_after(1)
    assert (held.held_ms, held.stack) == (HELD_MS_MIN, "in user code")


def test_loop_that_goes_round_or_waits_is_not_held_up():
    loop = Loop()
    loop.heartbeat_after(0)

    loop.rounds += 1
    assert loop.heartbeat_after(2 * HELD_MS_MIN).held_ms == 0
    loop.waiting = True
    assert loop.heartbeat_after(2 * HELD_MS_MIN).held_ms == 0
    loop.waiting = False
    assert loop.heartbeat_after(1).held_ms == 1


def test_stack_names_the_function_in_which_a_thread_is():
    entered, leave = Event(), Event()

    def user_function():
        entered.set()
        leave.wait()

    thread = Thread(target=user_function)
    thread.start()
    entered.wait()

    assert "user_function" in stack_of(thread.ident)
    leave.set()
    thread.join()
    assert stack_of(thread.ident) == ""


def test_memory_of_this_process_is_known():
    assert 1 << 20 < resident_bytes() < 1 << 40


@pytest.mark.parametrize("error", [RuntimeError, SystemExit, KeyboardInterrupt])
def test_thread_of_a_loop_that_has_ended_is_missed(error):
    def loop():
        raise error("a bug")

    thread = LoopThread(loop, name="loop")
    thread.start()
    thread.join(60)

    with pytest.raises(RaystreamError, match="loop of a slot ended") as caught:
        thread.check()
    assert isinstance(caught.value.__cause__, error)


def test_thread_of_a_loop_that_has_returned_is_missed_and_one_that_runs_is_not():
    go_on = Event()
    thread = LoopThread(go_on.wait, name="loop")
    thread.start()
    thread.check()

    go_on.set()
    thread.join(60)
    with pytest.raises(RaystreamError, match="loop of a slot ended"):
        thread.check()
