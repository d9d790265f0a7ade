"""What a store says in pages is read to the end, and no upload is taken for another."""

import asyncio

import pytest

from raystream.storage.s3 import S3FileSystem
from raystream.storage.s3_uploads import Part, UnfinishedUpload, Uploads


class PagedStore:
    """Answers listings with one item a page; keeps where each page was asked to begin."""

    def __init__(self, answers):
        self.answers = answers
        self.asked = []
        self.requests = []

    def wait(self, work):
        return asyncio.run(work)

    async def send(self, operation, **arguments):
        self.requests.append((operation, arguments))
        self.asked.append((operation, {k: v for k, v in arguments.items() if k not in ("Bucket", "Key")}))
        return self.answers[len(self.asked) - 1]


def test_every_unfinished_upload_is_found():
    store = PagedStore(
        [
            {
                "Uploads": [{"Key": "out/part-1", "UploadId": "x"}],
                "IsTruncated": True,
                "NextKeyMarker": "out/part-1",
                "NextUploadIdMarker": "x",
            },
            {"Uploads": [{"Key": "out/part-1", "UploadId": "y"}], "IsTruncated": False},
        ]
    )

    found = Uploads(store).unfinished("s3://b/out/part-")

    assert found == [UnfinishedUpload("s3://b/out/part-1", upload) for upload in "xy"]
    assert store.asked == [
        ("list_multipart_uploads", {"Prefix": "out/part-"}),
        (
            "list_multipart_uploads",
            {"Prefix": "out/part-", "KeyMarker": "out/part-1", "UploadIdMarker": "x"},
        ),
    ]


def test_every_part_of_an_upload_is_found():
    store = PagedStore(
        [
            {
                "Parts": [{"PartNumber": 1, "ETag": "a", "Size": 5}],
                "IsTruncated": True,
                "NextPartNumberMarker": 1,
            },
            {"Parts": [{"PartNumber": 2, "ETag": "b", "Size": 6}], "IsTruncated": False},
        ]
    )

    assert Uploads(store).parts("s3://b/out/part-1", "x") == [Part(1, "a", 5), Part(2, "b", 6)]
    assert store.asked == [
        ("list_parts", {"UploadId": "x"}),
        ("list_parts", {"UploadId": "x", "PartNumberMarker": 1}),
    ]


@pytest.mark.parametrize("answer", [{}, {"IsTruncated": False}, {"Uploads": []}])
def test_a_store_without_unfinished_uploads_has_none(answer):
    assert Uploads(PagedStore([answer])).unfinished("s3://b/out") == []


@pytest.mark.parametrize("upload_id", ["x", "2~Qm5Zr8", "~", "a/b+c=~%7E"])
def test_an_unfinished_upload_is_aborted_by_the_name_that_it_is_listed_under(upload_id):
    """Whatever characters its id has: that of a Ceph store begins with `2~`."""
    key = "jobs/shared/c3-a1-x~y"
    store = PagedStore([{}, {"Uploads": [{"Key": key, "UploadId": upload_id}]}, {}])
    fs = S3FileSystem(store)
    [entry] = fs.list_dir("s3://b/jobs/shared")
    fs.delete_file(f"s3://b/jobs/shared/{entry.name}")

    assert store.requests[-1] == (
        "abort_multipart_upload",
        {"Bucket": "b", "Key": key, "UploadId": upload_id},
    )
