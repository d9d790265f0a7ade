"""What hangs holds up its own kind alone."""

import threading

import pytest

from raystream.runtime import thread_pools
from raystream.runtime.mailbox import Mailbox
from raystream.runtime.thread_pools import CoordinatorThreads, SlotThreads

PATIENCE_S = 60.0
WORK_MANY = 20

COORDINATOR = ["log", "metadata", "discovery", "deletion"]
SLOT = ["uploads", "commits"]


@pytest.fixture
def hang():
    """Return a function that fills the threads of one kind with work that ends with the test."""
    release = threading.Event()

    def fill(background):
        for _ in range(WORK_MANY):
            background.submit(lambda: release.wait(PATIENCE_S), lambda _: None)

    yield fill
    release.set()


@pytest.mark.parametrize(
    ("make", "kinds"), [(CoordinatorThreads, COORDINATOR), (lambda mailbox: SlotThreads(mailbox, 0), SLOT)]
)
def test_every_kind_of_work_goes_on_while_all_others_hang(make, kinds, hang):
    for kind in kinds:
        posted = threading.Event()
        mailbox = Mailbox(posted.set)
        threads = make(mailbox)
        for other in kinds:
            if other != kind:
                hang(getattr(threads, other))
        outcomes = []

        getattr(threads, kind).submit(lambda: "done", outcomes.append)
        assert posted.wait(PATIENCE_S)
        mailbox.run_pending()

        assert outcomes == ["done"]
        threads.close()


def test_no_kind_has_more_threads_than_its_bound():
    bounds = [value for name, value in vars(thread_pools).items() if name.endswith("_THREADS_MAX")]

    assert len(bounds) == len(COORDINATOR) + len(SLOT)
    assert all(1 <= bound <= 4 for bound in bounds)
