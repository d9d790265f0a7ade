"""What every file system promises, and file systems that break in a planned way."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from raystream.errors import StorageError
from raystream.storage.filesystem import Data, Entry, FileSystem, MissingFileError, join_url


class FileSystemContract:
    """Subclasses provide the fixtures `fs` and `base`, the URL of an empty directory."""

    def test_linked_file_is_whole_and_does_not_need_its_first_name(self, fs, base, tmp_path):
        source, url = tmp_path / "source", join_url(base, "a/b/linked")
        source.write_bytes(b"content")

        linked = fs.link(url, source)

        source.unlink()
        assert fs.exists(url) == linked
        assert not linked or fs.read(url) == b"content"
        fs.delete_file(url)
        assert not fs.exists(url)

    def test_file_that_is_gone_is_not_linked(self, fs, base, tmp_path):
        assert not fs.link(join_url(base, "linked"), tmp_path / "source")
        assert not fs.exists(join_url(base, "linked"))

    def test_what_was_written_is_read(self, fs, base):
        fs.write(join_url(base, "a/b/file"), b"content")

        assert fs.read(join_url(base, "a/b/file")) == b"content"

    def test_several_buffers_become_one_file(self, fs, base):
        fs.write(join_url(base, "file"), [b"one ", bytearray(b"two "), memoryview(b"three")])

        assert fs.read(join_url(base, "file")) == b"one two three"

    def test_a_large_file_in_uneven_pieces_is_read_whole_and_in_part(self, fs, base):
        content = b"".join(b"%07d\n" % n for n in range(2_500_000))
        pieces = [memoryview(content)[at : at + 3_333_333] for at in range(0, len(content), 3_333_333)]
        fs.write(join_url(base, "file"), pieces)

        assert fs.read(join_url(base, "file")) == content
        across = fs.read_range(join_url(base, "file"), 5_000_000, 14_000_000)
        assert across == content[5_000_000:19_000_000]
        assert fs.read_range(join_url(base, "file"), 19_999_990, 14_000_000) == content[19_999_990:]

    @pytest.mark.parametrize("size_bytes", [1, 40 << 20])
    def test_data_that_nobody_wants_any_more_leaves_nothing(self, fs, base, size_bytes):
        fs.write(join_url(base, "dir/other"), b"")
        with pytest.raises(UnwantedError):
            fs.write(join_url(base, "dir/file"), Withdrawn(size_bytes))

        assert not fs.exists(join_url(base, "dir/file"))
        assert [entry.name for entry in fs.list_dir(join_url(base, "dir"))] == ["other"]

    def test_an_empty_file_is_a_file(self, fs, base):
        fs.write(join_url(base, "file"), b"")

        assert fs.read(join_url(base, "file")) == b""
        assert fs.exists(join_url(base, "file"))

    @pytest.mark.parametrize(
        ("offset", "length", "expected"),
        [(0, 3, b"012"), (3, 4, b"3456"), (8, 5, b"89"), (10, 1, b""), (4, 0, b""), (0, 0, b"")],
    )
    def test_a_range_ends_where_the_file_ends(self, fs, base, offset, length, expected):
        fs.write(join_url(base, "file"), b"0123456789")

        assert fs.read_range(join_url(base, "file"), offset, length) == expected

    def test_a_file_that_is_not_there_is_told_apart(self, fs, base):
        fs.write(join_url(base, "file"), b"")
        for missing in ("nothing", "nothing/below", "file/below"):
            with pytest.raises(MissingFileError, match="file does not exist"):
                fs.read(join_url(base, missing))
            with pytest.raises(MissingFileError, match="file does not exist"):
                fs.read_range(join_url(base, missing), 0, 1)
            assert not fs.exists(join_url(base, missing))

    def test_an_exclusive_name_is_given_once(self, fs, base):
        url = join_url(base, "log/00000001")

        assert fs.create_exclusive(url, b"first")
        assert not fs.create_exclusive(url, b"second")
        assert fs.read(url) == b"first"

    def test_an_exclusive_name_is_free_again_after_deletion(self, fs, base):
        url = join_url(base, "entry")
        fs.create_exclusive(url, b"first")
        fs.delete_file(url)

        assert fs.create_exclusive(url, b"second")
        assert fs.read(url) == b"second"

    def test_of_many_writers_one_gets_the_name(self, fs, base):
        url, winners = join_url(base, "entry"), []
        barrier = threading.Barrier(8)

        def claim(n: int) -> None:
            barrier.wait()
            if fs.create_exclusive(url, b"%d" % n):
                winners.append(n)

        threads = [threading.Thread(target=claim, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(winners) == 1
        assert fs.read(url) == b"%d" % winners[0]

    def test_a_listing_names_files_and_directories(self, fs, base):
        fs.write(join_url(base, "dir/b"), b"12")
        fs.write(join_url(base, "dir/a"), b"")
        fs.write(join_url(base, "dir/c/d/e"), b"1")

        assert fs.list_dir(join_url(base, "dir")) == [
            Entry(name="a", directory=False, size_bytes=0),
            Entry(name="b", directory=False, size_bytes=2),
            Entry(name="c", directory=True, size_bytes=0),
        ]

    def test_a_directory_that_is_not_there_is_empty(self, fs, base):
        assert fs.list_dir(join_url(base, "nothing")) == []

    def test_deleting_what_is_not_there_is_no_error(self, fs, base):
        fs.write(join_url(base, "file"), b"")
        for missing in ("nothing", "nothing/below", "file/below"):
            fs.delete_file(join_url(base, missing))
            fs.delete_dir(join_url(base, missing))

    def test_a_deleted_directory_takes_everything_below_it(self, fs, base):
        fs.write(join_url(base, "dir/a"), b"1")
        fs.write(join_url(base, "dir/b/c"), b"2")
        fs.write(join_url(base, "dir-2/a"), b"3")
        fs.delete_dir(join_url(base, "dir"))

        assert not fs.exists(join_url(base, "dir"))
        assert not fs.exists(join_url(base, "dir/b/c"))
        assert fs.read(join_url(base, "dir-2/a")) == b"3"

    def test_a_directory_goes_as_a_whole_while_others_delete_the_same(self, fs, base):
        """Deletions of superfluous checkpoints and a sweep go on at the same time."""
        files = [join_url(base, below, f"{n:02}") for n in range(20) for below in ("dir", "dir/sub")]
        for file in files:
            fs.write(file, b"1")
        fs.write(join_url(base, "other"), b"1")
        barrier = threading.Barrier(4)

        def delete(call, *urls: str) -> None:
            barrier.wait()
            for url in urls:
                call(url)

        with ThreadPoolExecutor(4) as pool:
            rivals = [
                pool.submit(delete, fs.delete_dir, join_url(base, "dir")),
                pool.submit(delete, fs.delete_dir, join_url(base, "dir")),
                pool.submit(delete, fs.delete_file, *files[::3]),
                pool.submit(delete, fs.delete_file, *files[::-3]),
            ]
        for rival in rivals:
            rival.result()

        assert [entry.name for entry in fs.list_dir(base)] == ["other"]

    def test_nothing_but_the_file_is_left_behind(self, fs, base):
        fs.write(join_url(base, "dir/a"), b"1")
        fs.create_exclusive(join_url(base, "dir/b"), b"1")
        fs.create_exclusive(join_url(base, "dir/b"), b"2")

        assert [entry.name for entry in fs.list_dir(join_url(base, "dir"))] == ["a", "b"]

    def test_names_with_unusual_characters(self, fs, base):
        url = join_url(base, "job #1 %20/ä b?")
        fs.write(url, b"1")

        assert fs.read(url) == b"1"
        assert [entry.name for entry in fs.list_dir(join_url(base, "job #1 %20"))] == ["ä b?"]


class UnwantedError(Exception):
    """Raised by data."""


class Withdrawn(Sequence):
    """Data of two pieces; going through it ends behind the first."""

    def __init__(self, size_bytes: int) -> None:
        self._piece = bytes(size_bytes // 2)

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> bytes:
        if index not in (0, 1):
            raise IndexError(index)
        return self._piece

    def __iter__(self) -> Iterator[bytes]:
        yield self._piece
        raise UnwantedError


class CrashError(BaseException):
    """The process ends here: nothing that catches errors sees it."""


class BreakingFileSystem:
    """Passes calls on until the n-th one that changes something, which breaks.

    Args:
        inner: does the work.
        break_at: 0-based number of the changing call that breaks; None never.
        error: what it raises: `CrashError` also for all calls after it (the process is gone),
            `StorageError` for this one call only.
        done: whether the breaking call takes effect before it raises.
    """

    parallel = False

    def __init__(
        self,
        inner: FileSystem,
        *,
        break_at: int | None = None,
        error: type[BaseException] = CrashError,
        done: bool = False,
    ) -> None:
        self.inner = inner
        self.calls = 0
        self._break_at = break_at
        self._error = error
        self._done = done

    @contextmanager
    def _changing(self) -> Iterator[bool]:
        number, self.calls = self.calls, self.calls + 1
        broken = self._break_at is not None and (
            number == self._break_at or (number > self._break_at and self._error is CrashError)
        )
        yield not broken or (self._done and number == self._break_at)
        if broken:
            raise self._error("planned")

    def read(self, url: str) -> bytes:
        return self.inner.read(url)

    def read_range(self, url: str, offset: int, length: int) -> bytes:
        return self.inner.read_range(url, offset, length)

    def exists(self, url: str) -> bool:
        return self.inner.exists(url)

    def list_dir(self, url: str) -> list[Entry]:
        return self.inner.list_dir(url)

    def write(self, url: str, data: Data) -> None:
        with self._changing() as effective:
            if effective:
                self.inner.write(url, data)

    def link(self, url: str, source: Path) -> bool:
        with self._changing() as effective:
            return self.inner.link(url, source) if effective else False

    def create_exclusive(self, url: str, data: Data) -> bool:
        with self._changing() as effective:
            return self.inner.create_exclusive(url, data) if effective else False

    def delete_file(self, url: str) -> None:
        with self._changing() as effective:
            if effective:
                self.inner.delete_file(url)

    def delete_dir(self, url: str) -> None:
        with self._changing() as effective:
            if effective:
                self.inner.delete_dir(url)


class UnreachableFileSystem:
    """A store that answers nothing."""

    parallel = False

    def __getattr__(self, name: str):
        def refuse(*args: object, **kwargs: object) -> None:
            raise StorageError("could not reach the store", path=str(args[0]), cause="planned")

        return refuse
