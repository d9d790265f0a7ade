"""What tests of the file sink on an object store share: what is in the bucket, seen by another client."""

from dataclasses import dataclass
from typing import Any

from raystream.records.batch import RowBatch
from tests.unit.connectors.sinks import context_of

PART = "out/part-sink-0123456789abcdef"
"""How the names of objects begin, before subtask, attempt and counter."""


@dataclass(frozen=True)
class Output:
    """A bucket of its own for a test."""

    client: Any
    """Of boto3."""
    name: str

    @property
    def url(self) -> str:
        return f"s3://{self.name}"

    def names(self) -> list[str]:
        """Return the key of each object."""
        found = self.client.list_objects_v2(Bucket=self.name).get("Contents", ())
        return [one["Key"] for one in found]

    def objects(self) -> dict[str, bytes]:
        """Return the content of each object by its key."""
        return {key: self._content(key) for key in self.names()}

    def visible(self) -> dict[str, bytes]:
        """Return the content of the part files, by key."""
        return {key: self._content(key) for key in self.names() if _is_part(key)}

    def hidden(self, prefix: str) -> list[str]:
        """Return the keys below a prefix that are no part files."""
        return sorted(key for key in self.names() if key.startswith(prefix) and not _is_part(key))

    def lines(self) -> list[str]:
        """Return the lines of these."""
        return [line for _, data in sorted(self.visible().items()) for line in data.decode().splitlines()]

    def uploads(self) -> list[str]:
        """Return the keys of the unfinished uploads."""
        return sorted(upload["Key"] for upload in self._unfinished())

    def kept(self) -> list[str]:
        """Return the keys of the uploads that a savepoint keeps."""
        names = [key for key in self.names() if key.endswith(".savepoint")]
        return [key.replace("/.", "/").removesuffix(".savepoint") for key in names]

    def abort_uploads(self, prefix: str = "") -> None:
        """Do what a lifecycle rule of the bucket does."""
        for upload in self._unfinished():
            if upload["Key"].startswith(prefix):
                self.client.abort_multipart_upload(
                    Bucket=self.name, Key=upload["Key"], UploadId=upload["UploadId"]
                )

    def part_sizes(self) -> list[int]:
        """Return the sizes of the parts of the only unfinished upload."""
        [upload] = self._unfinished()
        parts = self.client.list_parts(Bucket=self.name, Key=upload["Key"], UploadId=upload["UploadId"])
        return [part["Size"] for part in parts.get("Parts", ())]

    def remove(self, *keys: str) -> None:
        """Remove objects, as a reader does that has taken them in."""
        for key in keys:
            self.client.delete_object(Bucket=self.name, Key=key)

    def _content(self, key: str) -> bytes:
        return bytes(self.client.get_object(Bucket=self.name, Key=key)["Body"].read())

    def _unfinished(self) -> list[dict[str, Any]]:
        return list(self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", ()))


def prepared(writer, *texts):
    """Write records and pre-commit them durably."""
    writer.write(RowBatch(list(texts)))
    committables = writer.prepare_commit(1)
    writer.sync()
    return committables


def commit_again(sink, committables, **changes):
    """Commit as a subtask does that has restored the committables."""
    sink.open_committer(context_of(**changes)).commit(committables)


def warnings(caplog):
    """Return what raystream has logged."""
    return [record for record in caplog.records if record.name.startswith("raystream")]


def _is_part(key: str) -> bool:
    return key.rpartition("/")[2].startswith("part-")
