"""Transfers of a slot go at once where that pays, in order where not, and are over when one has failed."""

import subprocess
import sys
import threading

import pytest

from raystream.errors import StorageError
from raystream.handles import SharedFile
from raystream.storage.blobs import SnapshotFiles
from raystream.storage.transfers import TRANSFERS_AT_ONCE, Transfers

PATIENCE_S = 60.0


class Distant:
    """Passes calls on to a store, several of which are worth making at once."""

    parallel = True

    def __init__(self, inner) -> None:
        self._inner = inner

    def __getattr__(self, name):
        return getattr(self._inner, name)


@pytest.fixture
def distant(fs):
    return SnapshotFiles(lambda _: Distant(fs))


def test_as_many_as_are_allowed_are_under_way_at_once():
    together = threading.Barrier(TRANSFERS_AT_ONCE, timeout=PATIENCE_S)

    def work(item: int) -> int:
        together.wait()
        return item * 2

    items = range(2 * TRANSFERS_AT_ONCE)
    assert Transfers().each(work, items) == [item * 2 for item in items]


def test_an_error_is_raised_when_nothing_is_under_way_any_more():
    begun, over = threading.Event(), []

    def work(item: int) -> None:
        if item == 0:
            assert begun.wait(PATIENCE_S)
            raise StorageError("planned")
        begun.set()
        over.append(item)

    with pytest.raises(StorageError, match="planned"):
        Transfers().each(work, range(100 * TRANSFERS_AT_ONCE))
    left = list(over)
    assert Transfers().each(over.append, []) == []
    assert over == left


def test_all_snapshots_of_a_slot_share_its_places():
    transfers, under_way, most = Transfers(), [], []

    def work(item: int) -> None:
        under_way.append(item)
        most.append(len(under_way))
        under_way.remove(item)

    callers = [threading.Thread(target=transfers.each, args=(work, range(n, 400, 4))) for n in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()

    assert len(most) == 400
    assert max(most) <= TRANSFERS_AT_ONCE


def test_a_store_that_hangs_does_not_keep_the_process_alive():
    script = """
import threading
from raystream.storage.transfers import Transfers
began = threading.Event()
hang = lambda _: (began.set(), threading.Event().wait())
threading.Thread(target=Transfers().each, args=(hang, [1, 2]), daemon=True).start()
began.wait()
"""
    subprocess.run([sys.executable, "-c", script], timeout=PATIENCE_S, check=True)


def test_files_go_one_by_one_where_nothing_is_gained(base):
    here = threading.get_ident()

    assert SnapshotFiles().each(base, lambda _: threading.get_ident(), range(3)) == [here] * 3
    assert SnapshotFiles().each("", lambda _: threading.get_ident(), range(3)) == [here] * 3


def test_shared_files_may_be_written_at_once(distant, base):
    files = [
        SharedFile(name=f"c1-a1-{n}", local=str(n), created_by=1, size_bytes=1, checksum="")
        for n in range(20)
    ]
    checkpoint = f"{base}/chk-1"
    distant.each(checkpoint, lambda file: distant.write_shared(checkpoint, file, b"1"), files)

    assert [entry.name for entry in distant.open_fs(base).list_dir(f"{base}/shared")] == sorted(
        file.name for file in files
    )
