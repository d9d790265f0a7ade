"""The pieces of file watching one by one: what is remembered, forgotten and found again."""

from raystream.connectors import file_watch
from raystream.connectors.file_lines import LineDecoder, LineFormat
from raystream.connectors.file_listing import FoundFile
from raystream.connectors.file_tail import KEEP_LOOKS, TailedFile, WatchedSplit
from raystream.connectors.files import FileSource
from raystream.operators.source import EnumeratorContext


def listed(tmp_path, enumerator, *, present):
    """Let the enumerator see a listing with or without a file; return how many splits that makes."""
    found = [FoundFile(path=str(tmp_path / "a"), device=1, inode=2, size=3)] if present else []
    enumerator.discovered(found)
    return len(enumerator.next_splits(0))


def test_a_file_that_one_listing_misses_is_not_new_but_one_that_was_long_gone_is(tmp_path):
    context = EnumeratorContext(parallelism=1, max_parallelism=128, restored=False)
    enumerator = FileSource.lines(tmp_path, watch="1s").enumerator(context, None)

    assert listed(tmp_path, enumerator, present=True) == 1
    assert listed(tmp_path, enumerator, present=False) == 0
    assert listed(tmp_path, enumerator, present=True) == 0
    assert listed(tmp_path, enumerator, present=False) == 0
    enumerator = FileSource.lines(tmp_path, watch="1s").enumerator(context, enumerator.snapshot())
    assert listed(tmp_path, enumerator, present=False) == 0
    assert listed(tmp_path, enumerator, present=True) == 1


def test_readers_hold_removed_files_longer_than_the_enumerator_remembers_them():
    assert KEEP_LOOKS > file_watch.ABSENCES_MAX + 1


def test_splits_that_no_reader_had_yet_are_in_the_enumerators_snapshot(tmp_path):
    log = tmp_path / "log"
    log.write_text("1\n")
    source = FileSource.lines(log, watch="1s")
    context = EnumeratorContext(parallelism=2, max_parallelism=128, restored=False)
    enumerator = source.enumerator(context, None)
    enumerator.discovered(enumerator.discover())
    again = source.enumerator(context, enumerator.snapshot())
    again.discovered(again.discover())

    splits = [WatchedSplit.decode(raw) for subtask in (0, 1) for raw in again.next_splits(subtask)]
    assert splits == [WatchedSplit(str(log), log.stat().st_ino)]
    assert again.next_splits(0) == []
    assert not again.exhausted


class Directory:
    """A listing of one directory, made anew for every question."""

    def __init__(self, path):
        self.path = path

    def path_of(self, inode):
        return next((str(path) for path in self.path.iterdir() if path.stat().st_ino == inode), None)


def test_a_file_that_moves_between_a_look_and_its_opening_is_read_at_the_next_look(tmp_path):
    log = tmp_path / "log"
    log.write_text("1\n")
    file = TailedFile(WatchedSplit(str(log), log.stat().st_ino), LineDecoder(LineFormat()))
    file.look(Directory(tmp_path))
    log.rename(tmp_path / "moved")
    assert file.take(10, 10) == []

    file.look(Directory(tmp_path))

    assert file.ready
    assert file.take(10, 10) == [b"1"]
    file.close()
