"""The pieces of file watching one by one: what is listed, remembered, forgotten and found again."""

import errno
import os

import pytest

from raystream.connectors import file_tail, file_watch
from raystream.connectors.file_birth import UNKNOWN, birth_of
from raystream.connectors.file_lines import LineDecoder, LineFormat
from raystream.connectors.file_listing import FoundFile, find_files
from raystream.connectors.file_tail import Sighting, TailedFile, WatchedSplit, decode_word
from raystream.connectors.file_watch import ABSENCES_MAX, FAILED_LISTINGS_MAX
from raystream.connectors.files import FileSource
from raystream.errors import ConfigError, StorageError
from raystream.operators.source import EnumeratorContext


def enumerator_of(pattern, state=None, parallelism=1):
    context = EnumeratorContext(parallelism=parallelism, max_parallelism=128, restored=state is not None)
    return FileSource.lines(pattern, watch="1s").enumerator(context, state)


def file(path="/logs/a", **changes):
    return FoundFile(**{"path": path, "device": 1, "inode": 2, "birth_ns": 3, "size": 4, **changes})


def said(enumerator, *found):
    """Let the enumerator see a listing; return what it says to the first reader."""
    enumerator.discovered(list(found))
    return words(enumerator)


def words(enumerator, subtask=0):
    """What a reader is told, without when files went."""
    decoded = [decode_word(raw) for raw in enumerator.next_splits(subtask)]
    return [sighting(word.number, word.path) if isinstance(word, Sighting) else word for word in decoded]


def sighting(number, path):
    return Sighting(number, path, -1)


def gone(number):
    return sighting(number, None)


def tailed(path, **fields):
    status = path.stat()
    split = WatchedSplit(str(path), status.st_ino, birth_of(str(path)), 0, **fields)
    return TailedFile(split, LineDecoder(LineFormat()))


# ---- what is known of files -------------------------------------------------


def test_a_file_is_dealt_out_once_however_long_it_was_gone():
    enumerator = enumerator_of("/logs/*")

    assert said(enumerator, file()) == [WatchedSplit("/logs/a", 2, 3, 0)]
    assert [said(enumerator) for _ in range(4)] == [[], [gone(0)], [], []]
    assert said(enumerator, file()) == [sighting(0, "/logs/a")]
    enumerator = enumerator_of("/logs/*", enumerator.snapshot())
    assert [said(enumerator) for _ in range(3)] == [[], [gone(0)], []]
    assert said(enumerator, file("/logs/b")) == [sighting(0, "/logs/b")]


def test_a_file_that_one_listing_misses_has_not_gone():
    enumerator = enumerator_of("/logs/*")
    said(enumerator, file())

    assert [said(enumerator, *found) for found in ([], [file()], [], [file()])] == [[], [], [], []]


def test_another_file_with_the_inode_of_a_removed_one_is_dealt_out():
    enumerator = enumerator_of("/logs/*")
    said(enumerator, file())

    assert said(enumerator, file(birth_ns=9)) == [WatchedSplit("/logs/a", 2, 9, 1), gone(0)]
    assert said(enumerator, file(birth_ns=9)) == []


def test_files_without_a_birth_are_known_by_their_inode():
    enumerator = enumerator_of("/logs/*")
    said(enumerator, file(birth_ns=UNKNOWN))

    assert said(enumerator, file(birth_ns=9)) == []


def test_two_names_of_one_file_are_one_split_and_no_news():
    enumerator = enumerator_of("/logs/*")

    assert len(said(enumerator, file("/logs/a"), file("/logs/b"))) == 1
    assert said(enumerator, file("/logs/a"), file("/logs/b")) == []
    assert said(enumerator, file("/logs/b")) == [sighting(0, "/logs/b")]
    assert said(enumerator, file("/logs/a"), file("/logs/b")) == []


def test_every_reader_is_told_where_a_file_is_because_any_may_have_it():
    enumerator = enumerator_of("/logs/*", parallelism=3)
    enumerator.discovered([file()])
    enumerator.next_splits(0)
    enumerator.discovered([file("/logs/moved")])

    assert [words(enumerator, subtask) for subtask in range(3)] == [[sighting(0, "/logs/moved")]] * 3


def test_files_with_one_inode_on_two_devices_are_two_files_after_a_restart_too():
    enumerator = enumerator_of("/logs/*")
    here, there = file("/logs/a"), file("/logs/b", device=7)
    said(enumerator, here, there)
    enumerator = enumerator_of("/logs/*", enumerator.snapshot())

    assert all(isinstance(word, Sighting) for word in said(enumerator, here, there))


def test_a_file_is_forgotten_when_many_were_found_since_it_went(monkeypatch):
    monkeypatch.setattr(file_watch, "REMEMBERED_MAX", 3)
    enumerator = enumerator_of("/logs/*")
    older, newer = ([file(f"/logs/{i}", inode=10 + i) for i in numbers] for numbers in (range(9), range(12)))
    said(enumerator, file())
    said(enumerator, file(), *older)
    for _ in range(ABSENCES_MAX):
        said(enumerator, *older)
    said(enumerator, *newer[:-1])
    assert said(enumerator, file(), *newer[:-1]) == [sighting(0, "/logs/a")]
    for _ in range(ABSENCES_MAX):
        said(enumerator, *older)
    newest = [*newer, *(file(f"/logs/{i}", inode=30 + i) for i in (0, 1))]
    enumerator = enumerator_of("/logs/*", enumerator.snapshot())
    said(enumerator, *newest)

    assert said(enumerator, file(), *newest)[0].number == 15


def test_a_reader_forgets_a_file_not_before_the_enumerator(tmp_path, monkeypatch):
    monkeypatch.setattr(file_watch, "REMEMBERED_MAX", 3)
    reader = file_watch.WatchReader(1000, LineDecoder(LineFormat()), _Context())
    gone, *newer = [WatchedSplit(str(tmp_path / str(i)), i, 0, i, gone=i == 0) for i in range(5)]

    reader.add_splits([split.encode() for split in (gone, *newer)])
    assert [decode_word(raw).number for raw in reader.snapshot()] == [0, 1, 2, 3, 4]
    reader.add_splits([Sighting(0, None, 3).encode()])
    assert [decode_word(raw).number for raw in reader.snapshot()] == [0, 1, 2, 3, 4]
    reader.add_splits([Sighting(0, None, 2).encode()])
    assert [decode_word(raw).number for raw in reader.snapshot()] == [1, 2, 3, 4]


class _Context:
    def wake(self):
        pass


def test_splits_that_no_reader_had_yet_are_in_the_enumerators_snapshot(tmp_path):
    log = tmp_path / "log"
    log.write_text("1\n")
    enumerator = enumerator_of(log, parallelism=2)
    enumerator.discovered(enumerator.discover())
    again = enumerator_of(log, enumerator.snapshot(), parallelism=2)
    again.discovered(again.discover())

    splits = [word for i in (0, 1) for word in words(again, i) if isinstance(word, WatchedSplit)]
    assert splits == [WatchedSplit(str(log), log.stat().st_ino, birth_of(str(log)), 0)]
    assert again.next_splits(0) == []
    assert not again.exhausted


# ---- listings that fail -----------------------------------------------------


@pytest.fixture
def broken(monkeypatch):
    """Directories that answer with an error, by path."""
    errors = {}
    scandir = os.scandir

    def failing(path):
        if path in errors:
            raise OSError(errors[path], os.strerror(errors[path]), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", failing)
    return errors


@pytest.mark.parametrize("pattern", ["*", "*/*.log", "**/*.log", "**", "b/*", ""])
@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EACCES])
def test_a_directory_that_does_not_answer_fails_the_listing(tmp_path, broken, pattern, code):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.log").write_text("1\n")
    broken[str(tmp_path if pattern == "*" else tmp_path / "b")] = code

    with pytest.raises(ConfigError if code == errno.EACCES else StorageError, match="cannot be listed"):
        find_files(str(tmp_path / pattern), required=False)


def test_a_failed_listing_is_no_absence_of_any_file(tmp_path, broken):
    (tmp_path / "a").write_text("1\n")
    enumerator = enumerator_of(tmp_path / "*")
    enumerator.discovered(enumerator.discover())
    enumerator.next_splits(0)
    broken[str(tmp_path)] = errno.EIO
    for _ in range(FAILED_LISTINGS_MAX):
        result = enumerator.discover()
        assert not isinstance(result, Exception), "which would count as raised"
        enumerator.discovered(result)
    del broken[str(tmp_path)]
    enumerator.discovered(enumerator.discover())

    assert enumerator.next_splits(0) == []


def test_listings_that_keep_failing_fail_the_attempt_and_so_does_the_first(tmp_path, broken):
    enumerator = enumerator_of(tmp_path / "*")
    broken[str(tmp_path)] = errno.EIO
    with pytest.raises(StorageError, match="directory cannot be listed"):
        enumerator.discover()
    enumerator.discovered([])
    for _ in range(FAILED_LISTINGS_MAX):
        enumerator.discovered(enumerator.discover())

    with pytest.raises(StorageError, match="directory cannot be listed"):
        enumerator.discovered(enumerator.discover())


def test_patterns_find_what_a_shell_would_and_links_in_a_circle_end(tmp_path):
    for name in ("a.log", ".hidden.log", "sub/b.log", "sub/deep/c.log", ".dir/d.log", "sub/other"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1\n")
    (tmp_path / "sub" / "circle").symlink_to(tmp_path)
    (tmp_path / "loop.log").symlink_to(tmp_path / "loop.log")
    (tmp_path / "nowhere.log").symlink_to(tmp_path / "nothing")

    def found(pattern):
        return [
            os.path.relpath(file.path, tmp_path)
            for file in find_files(str(tmp_path / pattern), required=False)
        ]

    assert found("*.log") == ["a.log"]
    assert found(".*.log") == [".hidden.log"]
    assert found("*/*.log") == ["sub/b.log"]
    assert found("[s]ub/d*/c.log") == ["sub/deep/c.log"]
    assert found("**/*.log") == ["a.log", "sub/b.log", "sub/deep/c.log"]
    assert found("sub/**") == ["sub/b.log", "sub/circle/a.log", "sub/deep/c.log", "sub/other"]
    assert found("none/*.log") == found("a.log/*") == []


# ---- one file ---------------------------------------------------------------


def test_a_file_that_moves_between_a_look_and_its_opening_is_read_when_it_is_sighted(tmp_path):
    log = tmp_path / "log"
    log.write_text("1\n")
    tail = tailed(log)
    tail.look()
    log.rename(tmp_path / "moved")
    assert tail.take(10, 10) == []
    tail.look()
    assert not tail.ready

    tail.sighted(Sighting(0, str(tmp_path / "moved")))
    tail.look()

    assert tail.ready
    assert tail.take(10, 10) == [b"1"]
    tail.close()


def test_a_file_that_is_not_held_open_goes_when_it_is_sighted_nowhere(tmp_path):
    log = tmp_path / "log"
    log.write_text("1\n")
    tail = tailed(log)
    log.unlink()
    for _ in range(2 * file_tail.KEEP_LOOKS):
        tail.look()
    assert not tail.gone

    tail.sighted(Sighting(0, None))
    tail.look()
    assert tail.gone
    assert tail.split().gone


def test_a_file_of_another_birth_is_never_read_for_the_one_whose_inode_it_has(tmp_path, monkeypatch):
    log = tmp_path / "log"
    log.write_text("1\n")
    tail = tailed(log)
    monkeypatch.setattr(file_tail, "birth_of", lambda _: birth_of(str(log)) + 1)
    tail.look()

    assert tail.take(10, 10) == []


NO_TEXT = b"caf\xe9.log"
"""A name in Latin-1, which is no UTF-8."""


def bounded(pattern):
    context = EnumeratorContext(parallelism=1, max_parallelism=128, restored=False)
    return FileSource.lines(pattern).enumerator(context, None)


@pytest.mark.parametrize("pattern", ["", "*"])
def test_a_file_name_that_is_not_text_is_refused_by_name(tmp_path, pattern):
    (tmp_path / os.fsdecode(NO_TEXT)).write_text("1\n")

    with pytest.raises(ConfigError, match="name of an input file is not UTF-8 text") as raised:
        bounded(tmp_path / pattern).discover()

    assert raised.value.context["path"] == str(tmp_path / "caf\\xe9.log")


@pytest.mark.parametrize("pattern", ["", "*"])
def test_a_watched_file_whose_name_is_not_text_is_told_once_and_holds_up_no_other(tmp_path, caplog, pattern):
    (tmp_path / "a.log").write_text("1\n")
    (tmp_path / os.fsdecode(NO_TEXT)).write_text("1\n")
    enumerator = enumerator_of(tmp_path / pattern)
    for _ in range(3):
        enumerator.discovered(enumerator.discover())

    (split,) = map(decode_word, enumerator.next_splits(0))
    assert split.path == str(tmp_path / "a.log")
    assert enumerator.snapshot()
    assert [record.path for record in caplog.records] == [str(tmp_path / "caf\\xe9.log")]
