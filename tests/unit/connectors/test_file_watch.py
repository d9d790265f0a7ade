"""Watched files: growth, new files, rotation, truncation and removal, nothing lost and nothing twice."""

import os
import random
from dataclasses import replace

import pytest

from raystream.connectors import file_listing, file_tail, file_watch
from raystream.connectors.file_tail import KEEP_LOOKS, decode_word
from raystream.connectors.files import FileSource
from raystream.errors import ConfigError
from raystream.operators.source import NOTHING
from raystream.testing.contracts import SourceContract
from tests.unit.connectors.watching import INTERVAL_MS, Watch, append, open_files


@pytest.fixture
def log(tmp_path):
    return tmp_path / "access.log"


class TestWatchedLinesContract(SourceContract):
    seeds = range(40)

    @pytest.fixture(autouse=True)
    def _files(self, tmp_path):
        self.directory = tmp_path
        self.lines = []
        for name, count in (("a", 70), ("b", 30), ("c", 0)):
            lines = [f"{name} {'é' * (i % 5)} {i}" for i in range(count)]
            (tmp_path / name).write_text("".join(line + "\r\n" for line in lines) + "unfinished", newline="")
            self.lines += lines

    def source(self):
        return FileSource.lines(self.directory / "*", watch="1s")

    def expected(self):
        return self.lines


def test_a_line_comes_when_its_end_has_arrived(log):
    append(log, "a\nb")
    watch = Watch(log)

    assert watch.read() == ["a"]
    append(log, "bb")
    assert watch.read() == []
    append(log, "\nc\n")
    assert watch.read() == ["bbb", "c"]
    assert watch.read(5) == []


def test_growth_is_seen_within_one_interval(log):
    append(log, "a\n")
    watch = Watch(log)
    watch.read()
    append(log, "b\n")

    assert watch.read(1) == ["b"]


def test_new_files_are_found(tmp_path):
    watch = Watch(tmp_path / "*.log")
    assert watch.read() == []
    append(tmp_path / "2.log", "two\n")
    assert watch.read() == ["two"]
    append(tmp_path / "1.log", "one\n")
    append(tmp_path / "2.log", "more\n")
    assert sorted(watch.read()) == ["more", "one"]


def test_a_path_that_is_not_there_at_the_first_start_is_refused_but_not_later(log):
    with pytest.raises(ConfigError, match="no such file"):
        Watch(log)
    append(log, "a\n")
    watch = Watch(log)
    watch.read()
    log.unlink()

    assert watch.read(2) == []
    assert watch.restart().read() == []


def test_a_renamed_file_keeps_its_place_and_the_new_one_is_read_from_its_start(tmp_path, log):
    append(log, "1\n2\n")
    watch = Watch(tmp_path / "access.log*")
    assert watch.read() == ["1", "2"]
    append(log, "3\n")
    log.rename(tmp_path / "access.log.1")
    append(tmp_path / "access.log.1", "4\n")
    append(log, "5\n")

    assert sorted(watch.read(3)) == ["3", "4", "5"]
    append(tmp_path / "access.log.1", "6\n")
    assert watch.read(10) == ["6"]
    assert len(watch.files) == 2


def test_a_file_renamed_out_of_the_pattern_is_read_to_its_end_and_given_up(tmp_path, log):
    append(log, "1\n")
    watch = Watch(log)
    assert watch.read() == ["1"]
    rotated = log.rename(tmp_path / "rotated")
    append(rotated, "2\n")
    append(log, "new 1\n")
    assert sorted(watch.read()) == ["2", "new 1"]
    append(rotated, "3\nunfinished")
    assert watch.read() == ["3"]

    assert watch.read(KEEP_LOOKS + 2) == ["unfinished"]
    assert len(watch.files) == 1


def test_a_removed_file_is_read_to_its_end_and_given_up(log):
    append(log, "1\n")
    watch = Watch(log)
    assert watch.read() == ["1"]
    append(log, "2\n")
    log.unlink()

    assert watch.read() == ["2"]
    assert watch.read(KEEP_LOOKS + 2) == []
    assert watch.files == []


@pytest.mark.parametrize("again", ["x\n", "1\n2\n3\n", "other lines, longer than those before\n"])
def test_a_truncated_file_is_read_from_its_start(log, again):
    append(log, "1\n2\n")
    watch = Watch(log)
    assert watch.read() == ["1", "2"]
    log.write_text("")
    assert watch.read() == []
    log.write_text(again)

    assert watch.read() == again.splitlines()


def test_a_file_that_was_overwritten_beyond_the_position_between_two_looks_is_read_from_its_start(log):
    append(log, "1\n2\n")
    watch = Watch(log)
    assert watch.read() == ["1", "2"]
    log.write_text("3\n4\n5\n")

    assert watch.read() == ["3", "4", "5"]


def test_a_restart_goes_on_where_the_snapshot_was(tmp_path, log):
    append(log, "1\n2\n")
    watch = Watch(tmp_path / "*")
    assert watch.read() == ["1", "2"]
    watch = watch.restart()
    append(log, "3\n")

    assert watch.read() == ["3"]


def test_a_file_rotated_while_the_job_was_down_keeps_its_place(tmp_path, log):
    append(log, "1\n")
    watch = Watch(tmp_path / "access.log*")
    assert watch.read() == ["1"]
    snapshot = watch.run.snapshot()
    watch.run.close()
    append(log, "2\n")
    log.rename(tmp_path / "access.log.1")
    append(log, "3\n")

    assert sorted(Watch(tmp_path / "access.log*", 1, snapshot).read(4)) == ["2", "3"]


def test_a_file_removed_while_the_job_was_down_is_dropped(log):
    append(log, "1\n")
    watch = Watch(log)
    watch.read()
    snapshot = watch.run.snapshot()
    watch.run.close()
    keep_inode = os.open(log, os.O_RDONLY)
    log.unlink()
    append(log, "2\n")

    again = Watch(log, 1, snapshot)
    assert again.read(4) == ["2"]
    assert len(again.files) == 1
    os.close(keep_inode)


def test_another_file_with_the_inode_of_a_removed_one_is_read_from_its_start(tmp_path, log):
    append(log, "1\n2\n")
    watch = Watch(tmp_path / "*")
    watch.read()
    snapshot = watch.run.snapshot()
    watch.run.close()
    # Writing in place is what a reused inode looks like from outside.
    log.write_text("another file\nwith other lines\n")
    log.rename(tmp_path / "other.log")

    assert Watch(tmp_path / "*", 1, snapshot).read(4) == ["another file", "with other lines"]


def test_another_file_with_name_and_inode_of_a_removed_one_is_followed_alone(log, monkeypatch):
    born_ns = [6]
    for module in (file_listing, file_tail):
        monkeypatch.setattr(module, "birth_of", lambda file: born_ns[0])
    append(log, "1\n")
    watch = Watch(log)
    watch.read()
    snapshot = watch.run.snapshot()
    watch.run.close()
    log.write_text("2\n")  # Stays in its inode.
    born_ns[0] = 7

    again = Watch(log, 1, snapshot)
    assert again.read(4) == ["2"]
    assert [decode_word(raw).birth_ns for raw in again.files] == [7]


def test_device_numbers_may_change_between_restarts(log, monkeypatch):
    append(log, "1\n")
    watch = Watch(log)
    watch.read()
    find_files = file_watch.find_files

    def on_another_device(pattern, *, required):
        return [replace(file, device=file.device + 1) for file in find_files(pattern, required=required)]

    monkeypatch.setattr(file_watch, "find_files", on_another_device)
    append(log, "2\n")
    assert watch.restart().read(5) == ["2"]


def test_files_are_dealt_out_in_turn(tmp_path):
    for i in range(6):
        append(tmp_path / f"{i}.log", f"{i}\n")
    watch = Watch(tmp_path / "*.log", parallelism=3)

    assert sorted(watch.read()) == [str(i) for i in range(6)]
    assert [len(run.reader.snapshot()) for run in watch.run.readers] == [2, 2, 2]


def test_one_busy_file_does_not_keep_others_waiting(tmp_path):
    append(tmp_path / "busy.log", "busy\n" * 1000)
    append(tmp_path / "calm.log", "calm\n")
    watch = Watch(tmp_path / "*.log")
    watch.run.tick()
    reader = watch.run.readers[0].reader
    reader.add_splits(watch.run.enumerator.next_splits(0))

    batches = [reader.poll(10, 1 << 20).values for _ in range(3)]

    assert ["calm"] in batches
    assert batches.count(["busy"] * 10) == 2


def test_more_files_than_descriptors_are_followed(tmp_path, monkeypatch):
    monkeypatch.setattr(file_watch, "DESCRIPTORS_MAX", 3)
    for i in range(10):
        append(tmp_path / f"{i}.log", f"{i}\n")
    watch = Watch(tmp_path / "*.log")
    assert len(watch.read()) == 10
    assert watch.read() == []
    assert len(open_files(tmp_path)) <= 3
    for i in range(10):
        append(tmp_path / f"{i}.log", f"again {i}\n")
    (tmp_path / "7.log").rename(tmp_path / "seven.log")

    assert sorted(watch.read(3)) == [f"again {i}" for i in range(10)]


def test_a_silent_reader_asks_to_be_woken_at_the_next_look(log):
    append(log, "1\n")
    watch = Watch(log)
    watch.read()
    run = watch.run.readers[0]

    assert run.reader.poll(10, 10) is NOTHING
    assert run.wake_at_ms - run.clock.now_ms <= INTERVAL_MS


def test_the_anchor_spans_several_small_reads(log):
    append(log, "")
    watch = Watch(log)
    for i in range(100):
        append(log, f"{i:03}\n")
        assert watch.read(1) == [f"{i:03}"]

    [raw] = watch.files
    assert decode_word(raw).anchor == "".join(f"{i:03}\n" for i in range(84, 100)).encode()


@pytest.mark.parametrize("seed", range(60))
def test_random_writing_rotation_and_restarts_lose_and_double_nothing(tmp_path, seed):
    """A writer appends half lines and rotates within the pattern; the job dies and comes back."""
    rng = random.Random(seed)
    directory = tmp_path / "logs"
    directory.mkdir()
    log = directory / "access.log"
    append(log, "")
    watch = Watch(directory / "access.log*", rng.randint(1, 3))
    durable, written, rotations = [], [], 0
    snapshot = None
    for _ in range(60):
        action = rng.random()
        if action < 0.5:
            lines = [f"{len(written) + i}" for i in range(rng.randint(1, 20))]
            text = "".join(f"{line}\n" for line in lines)
            cut = rng.randrange(len(text) + 1)
            append(log, text[:cut])
            watch.run.read_what_is_there()
            append(log, text[cut:])
            written += lines
        elif action < 0.65:
            rotations += 1
            log.rename(directory / f"access.log.{rotations}")
            append(log, "")
        elif action < 0.85:
            watch.run.tick()
            watch.run.read_what_is_there()
        elif action < 0.93:
            snapshot = watch.run.snapshot()
            durable += watch.run.records
            watch.run.records = []
        else:
            watch.run.close()
            if snapshot is None:
                durable = []
            watch = Watch(directory / "access.log*", rng.randint(1, 3), snapshot)
    for _ in range(4):
        watch.run.tick()
        watch.run.read_what_is_there()
    durable += watch.run.records
    watch.run.close()

    assert sorted(durable, key=int) == written


def test_a_snapshot_inside_a_block_stands_behind_the_last_line_handed_out(log):
    append(log, "é\r\nnext\n")
    watch = Watch(log)
    reader = watch.run.readers[0].reader
    reader.add_splits(watch.run.enumerator.next_splits(0))
    reader.poll(1, 1 << 20)

    [raw] = watch.run.snapshot().splits[0]
    split = decode_word(raw)
    assert (split.path, split.inode, split.offset, split.anchor) == (
        str(log), log.stat().st_ino, 4, "é\r\n".encode(),
    )  # fmt: skip


def test_a_file_that_left_the_pattern_for_long_and_comes_back_is_read_on(tmp_path, log):
    append(log, "1\n2\n")
    watch = Watch(tmp_path / "*.log", parallelism=2)
    assert watch.read() == ["1", "2"]
    away = log.rename(tmp_path / "away")
    assert watch.read(3 * KEEP_LOOKS) == []
    assert watch.files == []
    append(away, "3\n")
    away.rename(tmp_path / "back.log")

    assert watch.read() == ["3"]
    watch = watch.restart(parallelism=3)
    append(tmp_path / "back.log", "4\n")
    assert watch.read() == ["4"]


def test_a_file_that_was_gone_at_a_restart_is_read_on_when_it_comes_back(tmp_path, log):
    append(log, "1\n")
    watch = Watch(tmp_path / "*.log")
    watch.read()
    away = log.rename(tmp_path / "away")
    watch.read(3 * KEEP_LOOKS)
    watch = watch.restart(parallelism=2)
    assert watch.read(3 * KEEP_LOOKS) == []
    append(away, "2\n")
    away.rename(log)

    assert watch.read() == ["2"]
