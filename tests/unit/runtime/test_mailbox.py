"""A mailbox makes calls on its owner's thread, in order; background work comes back through it."""

import asyncio
import subprocess
import sys
import threading

import pytest

from raystream.operators.user_code import EscapedError
from raystream.runtime.mailbox import Mailbox, ThreadBackground

PATIENCE_S = 60.0

HANGS = """
import threading
from raystream.runtime.mailbox import Mailbox, ThreadBackground

begun = threading.Event()
background = ThreadBackground(Mailbox(lambda: None), name="test", threads_max=1)
background.submit(lambda: (begun.set(), threading.Event().wait()), print)
begun.wait()
background.close()
"""


class Wakes:
    def __init__(self):
        self.count = 0
        self.event = threading.Event()

    def __call__(self):
        self.count += 1
        self.event.set()


def test_calls_are_made_in_the_order_of_posting():
    log, mailbox = [], Mailbox(lambda: None)
    for n in range(5):
        mailbox.post(lambda n=n: log.append(n))

    assert mailbox.run_pending()
    assert log == [0, 1, 2, 3, 4]
    assert not mailbox.run_pending()


def test_call_posted_by_a_call_waits_for_the_next_round():
    """Otherwise calls that post each other would hold up the loop for ever."""
    log, mailbox = [], Mailbox(lambda: None)
    mailbox.post(lambda: mailbox.post(lambda: log.append("second")))

    mailbox.run_pending()
    assert log == []
    assert len(mailbox) == 1

    mailbox.run_pending()
    assert log == ["second"]


def test_take_hands_out_one_call_at_a_time():
    log, mailbox = [], Mailbox(lambda: None)
    mailbox.post(lambda: log.append("a"))

    mailbox.take()()

    assert log == ["a"]
    assert mailbox.take() is None


def test_every_post_wakes_the_loop():
    wakes = Wakes()
    mailbox = Mailbox(wakes)

    mailbox.post(lambda: None)
    mailbox.post(lambda: None)

    assert wakes.count == 2


def test_background_work_runs_elsewhere_and_its_outcome_comes_back_here():
    wakes, outcomes = Wakes(), []
    mailbox = Mailbox(wakes)
    background = ThreadBackground(mailbox, name="test", threads_max=1)

    background.submit(threading.get_ident, lambda thread: outcomes.append((thread, threading.get_ident())))
    assert wakes.event.wait(10)
    mailbox.run_pending()
    background.close()

    ((worker, owner),) = outcomes
    assert worker != owner == threading.get_ident()


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError])
def test_background_work_that_raises_what_is_no_exception_gives_one_that_stands_for_it(error):
    wakes, outcomes = Wakes(), []
    mailbox = Mailbox(wakes)
    background = ThreadBackground(mailbox, name="test", threads_max=1)

    def escape():
        raise error("why")

    background.submit(escape, outcomes.append)
    assert wakes.event.wait(10)
    mailbox.run_pending()
    background.close()

    (outcome,) = outcomes
    assert isinstance(outcome, EscapedError)
    assert str(outcome) == f"{error.__name__}: why"
    assert isinstance(outcome.original, error)


def test_background_work_that_raises_gives_its_exception():
    wakes, outcomes = Wakes(), []
    mailbox = Mailbox(wakes)
    background = ThreadBackground(mailbox, name="test", threads_max=1)

    background.submit(lambda: 1 // 0, outcomes.append)
    assert wakes.event.wait(10)
    mailbox.run_pending()
    background.close()

    assert [type(outcome) for outcome in outcomes] == [ZeroDivisionError]


def test_background_work_that_hangs_does_not_keep_the_process_alive():
    ended = subprocess.run([sys.executable, "-c", HANGS], timeout=PATIENCE_S, check=False)

    assert ended.returncode == 0


def test_threads_start_on_demand_up_to_their_bound_and_serve_what_waits_in_order():
    posted, go_on = threading.Semaphore(0), threading.Event()
    begun, outcomes = threading.Semaphore(0), []
    mailbox = Mailbox(posted.release)
    background = ThreadBackground(mailbox, name="test", threads_max=2)

    def work(n):
        begun.release()
        assert go_on.wait(PATIENCE_S)
        return n

    assert background._threads == []
    for n in range(6):
        background.submit(lambda n=n: work(n), outcomes.append)
    for _ in range(2):
        assert begun.acquire(timeout=PATIENCE_S)
    assert len(background._threads) == 2
    assert not begun.acquire(blocking=False)

    go_on.set()
    for _ in range(6):
        assert posted.acquire(timeout=PATIENCE_S)
    mailbox.run_pending()
    assert sorted(outcomes) == list(range(6))
    background.close()
    background.join()


def test_one_thread_does_what_comes_one_after_the_other():
    posted = threading.Event()
    mailbox = Mailbox(posted.set)
    background = ThreadBackground(mailbox, name="test", threads_max=1)
    outcomes = []
    for n in range(3):
        posted.clear()
        background.submit(lambda n=n: n, outcomes.append)
        assert posted.wait(PATIENCE_S)
        mailbox.run_pending()

    assert outcomes == [0, 1, 2]
    assert len(background._threads) == 1
    background.close()


def test_closed_background_ends_what_runs_and_begins_nothing():
    begun, go_on, log = threading.Event(), threading.Event(), []
    background = ThreadBackground(Mailbox(lambda: None), name="test", threads_max=1)

    def work():
        begun.set()
        assert go_on.wait(PATIENCE_S)
        log.append("ran")

    background.submit(work, print)
    assert begun.wait(PATIENCE_S)
    background.submit(lambda: log.append("waited"), print)
    background.close()
    background.submit(lambda: log.append("late"), print)
    go_on.set()
    background.join()

    assert log == ["ran"]
