"""What object stores do that disks do not: large uploads, pages, races, rights."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from raystream.errors import StorageError
from raystream.storage import s3
from raystream.storage.filesystem import TEMPORARY_PREFIX, join_url
from raystream.storage.stores import open_file_system
from tests.services.processes import seen_around_a_child
from tests.services.servers import ACCESS_KEY, SECRET_KEY
from tests.unit.storage.contract import UnwantedError, Withdrawn

RACES = 1_000
LARGE = bytes(range(256)) * (100 << 10)  # 25 MiB


def test_of_two_writers_of_one_entry_one_wins_each_of_a_thousand_times(fs, base):
    """Both write the same bytes, so that only the token tells them apart."""
    start = threading.Barrier(2)

    def claim_all() -> list[int]:
        won = []
        for number in range(RACES):
            start.wait()
            if fs.create_exclusive(join_url(base, f"log/{number:08d}"), b"entry"):
                won.append(number)
        return won

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.submit(claim_all), pool.submit(claim_all)

        assert sorted(one.result() + other.result()) == list(range(RACES))


def test_a_claim_is_what_its_writer_wrote_and_its_token_is_beside_it(fs, base, store, bucket):
    fs.create_exclusive(join_url(base, "entry"), b"content")

    found = store.client.get_object(Bucket=bucket, Key="checkpoints/entry")
    assert found["Body"].read() == b"content"
    assert len(found["Metadata"]["raystream-claim"]) == 32


def test_a_large_file_goes_in_parts_and_leaves_no_unfinished_upload(fs, base, store, bucket):
    fs.write(join_url(base, "file"), LARGE)

    assert store.client.head_object(Bucket=bucket, Key="checkpoints/file")["ETag"].strip('"').endswith("-4")
    assert store.unfinished(bucket) == []


def test_a_large_file_that_nobody_wants_any_more_leaves_no_unfinished_upload(fs, base, store, bucket):
    with pytest.raises(UnwantedError):
        fs.write(join_url(base, "file"), Withdrawn(40 << 20))

    assert store.unfinished(bucket) == []


def test_an_unfinished_upload_is_listed_and_deleted_as_an_unfinished_file(fs, base, store, bucket):
    fs.write(join_url(base, "shared/whole"), b"")
    for key in ("checkpoints/shared/c3-a1-x", "checkpoints/chk-3/half"):
        store.client.create_multipart_upload(Bucket=bucket, Key=key)
    directory = join_url(base, "shared")

    assert [entry.name for entry in fs.list_dir(base)] == ["chk-3", "shared"]
    unfinished, whole = fs.list_dir(directory)
    assert unfinished.name.startswith(f"{TEMPORARY_PREFIX}c3-a1-x")
    assert whole.name == "whole"

    for _ in range(2):  # Somebody else may have been faster.
        fs.delete_file(join_url(directory, unfinished.name))
        fs.delete_dir(join_url(base, "chk-3"))
    assert store.unfinished(bucket) == []
    assert store.keys(bucket) == ["checkpoints/shared/whole"]


def test_directories_of_several_pages_are_listed_and_deleted_whole(fs, base, store, bucket):
    def put(number: int) -> None:
        store.client.put_object(Bucket=bucket, Key=f"checkpoints/dir/{number:04d}", Body=b"")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(1_003)))
    fs.write(join_url(base, "dir-2/stays"), b"")

    assert [entry.name for entry in fs.list_dir(join_url(base, "dir"))] == [f"{n:04d}" for n in range(1_003)]
    fs.delete_dir(join_url(base, "dir"))
    assert store.keys(bucket) == ["checkpoints/dir-2/stays"]


def test_the_bucket_itself_is_a_directory(fs, bucket):
    whole = f"s3://{bucket}"

    assert not fs.exists(whole)
    fs.write(join_url(whole, "file"), b"1")
    assert fs.exists(whole)
    assert [entry.name for entry in fs.list_dir(whole)] == ["file"]
    fs.delete_dir(whole)
    assert fs.list_dir(whole) == []


def test_a_missing_bucket_is_no_empty_directory(store):
    url = "s3://no-such-bucket/checkpoints"
    fs = open_file_system(url)
    for ask in (fs.list_dir, fs.exists, fs.read, fs.delete_dir, lambda url: fs.write(url, b"")):
        with pytest.raises(StorageError) as caught:
            ask(url)
        assert type(caught.value) is StorageError
        assert caught.value.context["cause"] == "the bucket does not exist"
        assert "create the bucket" in caught.value.hint


def test_one_session_serves_all_threads_of_a_process(store, base):
    with ThreadPoolExecutor(4) as pool:
        opened = set(pool.map(lambda _: id(open_file_system(base)._requests), range(16)))

    assert len(opened) == 1


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_process_uses_the_store_on_its_own(fs, base, method):
    fs.write(join_url(base, "file"), b"1")

    assert seen_around_a_child(join_url(base, "file"), method) == "True True True"


def test_a_process_that_has_used_the_store_ends_without_a_word(store, base):
    script = f"from raystream.storage.stores import open_file_system as o; o({base!r}).list_dir({base!r})"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stdout + done.stderr == ""


@pytest.mark.parametrize("part_bytes", [1, 3, 4, 100])
def test_parts_have_one_size_but_the_last(part_bytes):
    pieces = [b"", b"ab", bytearray(b"cdefg"), memoryview(b"hij"), b""]
    parts = list(s3._parts(pieces, part_bytes))

    assert b"".join(parts) == b"abcdefghij"
    assert {len(part) for part in parts[:-1]} <= {part_bytes}
    assert 0 < len(parts[-1]) <= part_bytes


class TestRights:
    """Only one of the servers checks credentials."""

    @pytest.fixture
    def store(self, versitygw_server, monkeypatch):
        for name, value in versitygw_server.environment.items():
            monkeypatch.setenv(name, value)
        return versitygw_server

    @pytest.mark.parametrize(
        ("setting", "expected"),
        [
            (("AWS_SECRET_ACCESS_KEY", "wrong-" + SECRET_KEY), ("secret key", "AWS_SECRET_ACCESS_KEY")),
            (("AWS_ACCESS_KEY_ID", "nobody"), ("does not know the access key", "AWS_ACCESS_KEY_ID")),
            (("AWS_PROFILE", "nowhere"), ("profile", "AWS_PROFILE")),
            (("AWS_ENDPOINT_URL", "no url"), ("not a URL", "AWS_ENDPOINT_URL")),
        ],
    )
    def test_wrong_settings_have_one_line_of_cause_and_one_of_advice(
        self, bucket, monkeypatch, setting, expected
    ):
        monkeypatch.setenv(*setting)
        fs = open_file_system(f"s3://{bucket}")

        cause, advice = expected
        with pytest.raises(StorageError) as caught:
            fs.write(f"s3://{bucket}/file", b"")
        assert cause in caught.value.context["cause"]
        assert advice in caught.value.hint
        assert "\n" not in caught.value.context["cause"] + caught.value.hint

    def test_no_credentials_at_all_are_told_apart(self, bucket, monkeypatch):
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        with pytest.raises(StorageError) as caught:
            open_file_system(f"s3://{bucket}").write(f"s3://{bucket}/file", b"")

        assert caught.value.context["cause"] == "there are no credentials"
        assert "AWS_PROFILE" in caught.value.hint

    def test_credentials_may_come_from_a_profile(self, store, bucket, monkeypatch, tmp_path):
        file = tmp_path / "credentials"
        file.write_text(f"[mine]\naws_access_key_id={ACCESS_KEY}\naws_secret_access_key={SECRET_KEY}\n")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
        monkeypatch.setenv("AWS_PROFILE", "mine")
        open_file_system(f"s3://{bucket}").write(f"s3://{bucket}/file", b"")

        assert store.keys(bucket) == ["file"]
