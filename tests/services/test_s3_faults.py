"""A store that breaks costs time, never content: nothing is lost, doubled, claimed twice or left over."""

import logging
import threading

import pytest

from raystream.errors import ConfigError, StorageError
from raystream.ids import JobId
from raystream.storage import s3_requests
from raystream.storage.filesystem import MissingFileError, join_url
from raystream.storage.layout import JobLayout
from raystream.storage.probe import write_probe
from raystream.storage.s3_url import place_of
from raystream.storage.stores import open_file_system
from tests.services.conftest import use
from tests.services.processes import free_port
from tests.services.servers import ACCESS_KEY, SECRET_KEY, SESSION_TOKEN, ObjectStore

LARGE = bytes(range(256)) * (100 << 10)  # 25 MiB


@pytest.fixture
def store(faulty):
    return faulty


@pytest.fixture
def hasty(monkeypatch):
    """Give a request little time, and short pauses."""
    monkeypatch.setattr(s3_requests, "REQUEST_SECONDS_MAX", 1.0)
    monkeypatch.setattr(s3_requests, "PAUSE_SECONDS_MAX", 0.2)


BREAKS = [
    {"kind": "refuse", "status": 503, "code": "SlowDown", "times": 3},
    {"kind": "refuse", "status": 500, "code": "InternalError", "times": 2},
    {"kind": "lose", "status": 500, "code": "InternalError", "times": 1},
    {"kind": "lose", "status": 503, "code": "ServiceUnavailable", "times": 2},
    {"kind": "hang-up", "times": 2},
]


@pytest.mark.parametrize("fault", BREAKS, ids=lambda fault: f"{fault['kind']}-{fault['times']}")
@pytest.mark.parametrize(
    "match", ["PUT", "POST .*uploads", "POST .*uploadId", "GET", "HEAD", "DELETE", "POST .*delete"]
)
def test_every_operation_outlasts_what_passes_by(base, store, match, fault):
    fs, bucket = open_file_system(base), place_of(base)["Bucket"]
    store.faults({"match": match, **fault})
    fs.write(join_url(base, "dir/small"), b"small")
    fs.write(join_url(base, "dir/large"), LARGE)

    assert fs.create_exclusive(join_url(base, "dir/claim"), b"ours")
    assert not fs.create_exclusive(join_url(base, "dir/claim"), b"ours")
    assert fs.read(join_url(base, "dir/small")) == b"small"
    assert fs.read(join_url(base, "dir/large")) == LARGE
    assert [entry.name for entry in fs.list_dir(join_url(base, "dir"))] == ["claim", "large", "small"]
    assert fs.exists(join_url(base, "dir/claim"))
    fs.delete_file(join_url(base, "dir/small"))
    fs.delete_dir(base)
    store.faults()
    assert store.keys(bucket) == []
    assert store.unfinished(bucket) == []


@pytest.mark.parametrize("size_bytes", [1_000, len(LARGE)])
def test_an_answer_that_breaks_off_is_asked_for_again(fs, base, store, size_bytes):
    fs.write(join_url(base, "file"), LARGE[:size_bytes])
    store.faults({"match": "GET", "kind": "cut", "times": 2})

    assert fs.read(join_url(base, "file")) == LARGE[:size_bytes]
    assert fs.read_range(join_url(base, "file"), 10, 900) == LARGE[10:910]
    assert len(store.requests()) >= 4


def test_our_own_claim_is_told_from_another_writers_of_the_same_content(fs, base, store):
    """The answer of the first put is lost; the second one is told that the name is taken."""
    store.faults({"match": "PUT", "kind": "lose", "status": 500, "code": "InternalError", "times": 1})

    assert fs.create_exclusive(join_url(base, "entry"), b"content")
    assert [line.partition(" ")[0] for line in store.requests()] == ["PUT", "PUT", "HEAD"]
    assert not fs.create_exclusive(join_url(base, "entry"), b"content")


def test_a_claim_whose_outcome_stays_unknown_is_an_error_and_asking_again_tells(fs, base, store, hasty):
    fs.exists(base)
    store.faults({"match": "PUT", "kind": "lose"}, {"match": "HEAD", "kind": "refuse"})
    with pytest.raises(StorageError):
        fs.create_exclusive(join_url(base, "entry"), b"content")
    store.faults()

    assert not fs.create_exclusive(join_url(base, "entry"), b"content")
    assert fs.read(join_url(base, "entry")) == b"content"


def test_a_claim_that_meets_a_file_which_is_deleted_meanwhile_is_an_error(fs, base, store):
    fs.create_exclusive(join_url(base, "entry"), b"other")
    store.faults({"match": "HEAD", "kind": "refuse", "status": 404, "code": "404"})
    with pytest.raises(StorageError, match="could not create file") as caught:
        fs.create_exclusive(join_url(base, "entry"), b"content")
    assert not isinstance(caught.value, MissingFileError)


def test_two_writers_stay_apart_while_answers_are_lost(fs, base, store):
    """Every other answer to a claim is lost, for both of them."""
    losses = [
        {"match": f"PUT .*{number}\\?", "kind": "lose", "status": 500, "code": "InternalError", "times": 2}
        for number in range(0, 40, 2)
    ]
    store.faults(*losses)
    won: list[int] = []
    start = threading.Barrier(2)

    def claim_all() -> None:
        for number in range(40):
            start.wait()
            if fs.create_exclusive(join_url(base, f"entry-{number}"), b"content"):
                won.append(number)

    threads = [threading.Thread(target=claim_all) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(won) == list(range(40))


def test_a_large_upload_that_fails_is_aborted(fs, base, store, bucket):
    store.faults({"match": "PUT .*partNumber=3", "kind": "refuse", "status": 403, "code": "AccessDenied"})
    with pytest.raises(StorageError):
        fs.write(join_url(base, "file"), LARGE)
    store.faults()

    assert store.unfinished(bucket) == []
    assert not fs.exists(join_url(base, "file"))


def test_an_upload_that_was_begun_twice_is_aborted_once_and_no_other_is(fs, base, store, bucket):
    """The other one belongs to a file whose name begins with the name of ours."""
    store.client.create_multipart_upload(Bucket=bucket, Key="checkpoints/file-2")
    store.faults({"match": "POST .*uploads", "kind": "lose", "times": 1})
    fs.write(join_url(base, "file"), LARGE)

    assert store.unfinished(bucket) == ["checkpoints/file-2"]


def test_an_upload_that_was_aborted_by_somebody_is_an_error(fs, base, store, bucket):
    store.faults({"match": "POST .*uploadId", "kind": "refuse", "status": 404, "code": "NoSuchUpload"})

    with pytest.raises(StorageError):
        fs.write(join_url(base, "file"), LARGE)
    store.faults()
    assert store.unfinished(bucket) == []


def test_a_part_that_comes_twice_is_in_the_file_once(fs, base, store):
    store.faults({"match": "PUT .*partNumber=2", "kind": "lose", "times": 2})
    fs.write(join_url(base, "file"), LARGE)

    assert fs.read(join_url(base, "file")) == LARGE


def test_a_store_that_refuses_for_ever_is_given_up_in_time(fs, base, store, hasty):
    fs.exists(base)
    store.faults({"match": ".", "kind": "refuse"})
    with pytest.raises(StorageError) as caught:
        fs.read(join_url(base, "file"))

    assert caught.value.context["cause"] == "the store is overloaded or out of service"
    assert 3 <= len(store.requests()) <= s3_requests.ATTEMPTS_MAX


def test_a_refusal_that_stays_is_asked_for_once(fs, base, store):
    store.faults({"match": "PUT", "kind": "refuse", "status": 403, "code": "AccessDenied"})
    with pytest.raises(StorageError) as caught:
        fs.write(join_url(base, "file"), b"1")

    assert caught.value.context == {"path": join_url(base, "file"), "cause": "access is denied"}
    assert "put and delete objects" in caught.value.hint
    assert len(store.requests()) == 1


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((400, "ExpiredToken"), ("expired", "renew")),
        ((301, "PermanentRedirect"), ("another region", "AWS_DEFAULT_REGION")),
        ((400, "AuthorizationHeaderMalformed"), ("another region", "AWS_DEFAULT_REGION")),
        ((403, "RequestTimeTooSkewed"), ("clock", "clock")),
        ((507, "Whatever"), ("full", "free")),
        ((418, "Teapot"), ("Teapot with HTTP status 418", "")),
    ],
)
def test_what_the_store_says_becomes_one_line_of_cause_and_one_of_advice(fs, base, store, answer, expected):
    (status, code), (cause, advice) = answer, expected
    store.faults({"match": "GET", "kind": "refuse", "status": status, "code": code})
    with pytest.raises(StorageError) as caught:
        fs.read(join_url(base, "file"))

    assert cause in caught.value.context["cause"]
    assert advice in caught.value.hint
    assert "\n" not in caught.value.context["cause"] + caught.value.hint


def test_a_store_that_nobody_answers_for_is_given_up_soon(monkeypatch):
    nobody = ObjectStore(f"http://127.0.0.1:{free_port()}")
    use(nobody, monkeypatch)
    fs = open_file_system("s3://bucket")
    with pytest.raises(StorageError) as caught:
        fs.read("s3://bucket/file")

    assert caught.value.context["cause"] == f"no connection to {nobody.endpoint}"
    assert "AWS_ENDPOINT_URL" in caught.value.hint


def test_unfinished_uploads_that_may_not_be_listed_are_no_obstacle_and_warned_of_once(
    fs, base, store, bucket, caplog
):
    fs.write(join_url(base, "dir/file"), b"")
    store.faults({"match": "GET .*uploads", "kind": "refuse", "status": 403, "code": "AccessDenied"})

    assert [entry.name for entry in fs.list_dir(join_url(base, "dir"))] == ["file"]
    fs.delete_dir(base)
    assert not fs.exists(base)
    assert [record.bucket for record in caplog.records if record.levelno == logging.WARNING] == [bucket]


def test_files_that_were_not_deleted_are_an_error(fs, base, store):
    fs.write(join_url(base, "dir/file"), b"")
    kept = "<Error><Key>checkpoints/dir/file</Key><Code>AccessDenied</Code></Error>"
    answer = f"<DeleteResult>{kept}</DeleteResult>"
    store.faults({"match": "POST .*delete", "kind": "refuse", "status": 200, "body": answer})
    with pytest.raises(StorageError) as caught:
        fs.delete_dir(join_url(base, "dir"))

    assert caught.value.context["cause"] == "access is denied"


def test_a_store_that_ignores_conditions_is_refused(fs, base, store, bucket):
    store.faults({"match": "PUT", "kind": "unconditional"})
    with pytest.raises(ConfigError, match="only when it is absent") as caught:
        write_probe(fs, JobLayout(base, JobId("a" * 32)))

    assert "conditional writes" in caught.value.hint
    assert store.keys(bucket) == []


def test_no_secret_is_in_a_log_or_an_error(base, store, bucket, monkeypatch, caplog):
    """Everything that can go wrong does, with all logging on, and errors shown with what caused them."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("AWS_SESSION_TOKEN", SESSION_TOKEN)
    for library in ("aiobotocore", "botocore", "s3fs"):
        logging.getLogger(library).setLevel(logging.NOTSET)
    fs = open_file_system(base)
    shown = []
    for status, code in [(403, "SignatureDoesNotMatch"), (400, "InvalidToken"), (404, "NoSuchBucket")]:
        store.faults({"match": ".", "kind": "refuse", "status": status, "code": code, "quote": True})
        for ask in (
            fs.read,
            fs.list_dir,
            lambda url: fs.write(url, LARGE),
            lambda url: fs.create_exclusive(url, b""),
        ):
            with pytest.raises(StorageError) as caught:
                ask(base)
            shown += [str(caught.value), repr(caught.value), repr(caught.value.context)]
    with pytest.raises(ConfigError) as refused:
        open_file_system(f"s3://{ACCESS_KEY}:{SECRET_KEY}@{bucket}/x")
    shown += [str(refused.value), caplog.text]

    assert not any(secret in text for text in shown for secret in (SECRET_KEY, SESSION_TOKEN))
    assert not any(ACCESS_KEY in text for text in shown)


def test_a_missing_file_is_told_from_a_missing_bucket(fs, base):
    with pytest.raises(MissingFileError):
        fs.read(join_url(base, "file"))
    with pytest.raises(StorageError) as caught:
        fs.read("s3://no-such-bucket/file")
    assert not isinstance(caught.value, MissingFileError)


def test_a_404_that_is_not_of_the_store_is_no_missing_file(fs, base, store):
    """As a gateway answers that has lost the store behind it: the file is there."""
    fs.write(join_url(base, "file"), b"1")
    store.faults({"match": "GET", "kind": "refuse", "status": 404, "body": "404 page not found"})
    for ask in (fs.read, lambda url: fs.read_range(url, 0, 1)):
        with pytest.raises(StorageError) as caught:
            ask(join_url(base, "file"))
        assert type(caught.value) is StorageError
