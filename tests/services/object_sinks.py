"""What tests of the file sink on an object store share: what is there, seen by another client."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Bucket:
    """A bucket of its own for a test."""

    client: Any
    """Of boto3."""
    name: str

    @property
    def url(self) -> str:
        return f"s3://{self.name}"

    def objects(self) -> dict[str, bytes]:
        """Return the content of each object by its key."""
        found = self.client.list_objects_v2(Bucket=self.name).get("Contents", ())
        return {one["Key"]: self.client.get_object(Bucket=self.name, Key=one["Key"])["Body"].read() for one in found}

    def visible(self) -> dict[str, bytes]:
        """Return the content of the objects that a reader takes in, by key."""
        return {key: data for key, data in self.objects().items() if not key.rpartition("/")[2].startswith(".")}

    def lines(self) -> list[str]:
        """Return the lines of these."""
        return [line for _, data in sorted(self.visible().items()) for line in data.decode().splitlines()]

    def uploads(self) -> list[str]:
        """Return the keys of the unfinished uploads."""
        return sorted(upload["Key"] for upload in self._unfinished())

    def kept(self) -> list[str]:
        """Return the keys of the uploads that a savepoint keeps."""
        return [key.replace("/.", "/").removesuffix(".savepoint") for key in self.objects() if key.endswith(".savepoint")]

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
        for key in keys:
            self.client.delete_object(Bucket=self.name, Key=key)

    def _unfinished(self) -> list[dict[str, Any]]:
        return list(self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", ()))
