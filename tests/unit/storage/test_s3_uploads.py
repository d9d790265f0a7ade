"""What a store says in pages is read to the end."""

import asyncio

import pytest

from raystream.storage.s3_uploads import Part, UnfinishedUpload, Uploads


class PagedStore:
    """Answers listings with one item a page; keeps where each page was asked to begin."""

    def __init__(self, answers):
        self.answers = answers
        self.asked = []

    def wait(self, work):
        return asyncio.run(work)

    async def send(self, operation, **arguments):
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
