"""Real services for tests: each a process group of its own, which ends with the session."""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from tests.go_modules import program_of
from tests.services.processes import end_server, free_port, start_server

HERE = Path(__file__).parent
READY_SECONDS_MAX = 30.0
VERSITYGW = "github.com/versity/versitygw/cmd/versitygw", "v1.7.0"

# Made anew, since a job may carry the sources of its modules with it.
ACCESS_KEY, SECRET_KEY, SESSION_TOKEN = (os.urandom(10).hex() for _ in range(3))


@contextmanager
def running(
    command: Callable[[int], list[str]], ready: Callable[[int], object], log: Path, **environment: str
) -> Iterator[int]:
    """Run a server until the block ends, and give its port; one that was taken meanwhile costs one retry."""
    for last in (False, True):
        port = free_port()
        process = start_server(command(port), log, environment=environment)
        try:
            if wait_until_ready(process, lambda port=port: ready(port)):
                yield port
                return
            if last:
                raise AssertionError(f"{command(port)[0]} does not come up:\n{log.read_text()[-2000:]}")
        finally:
            end_server(process)


def wait_until_ready(
    process: "subprocess.Popen[bytes]", ready: Callable[[], object], seconds: float = READY_SECONDS_MAX
) -> bool:
    """Wait until `ready` raises no more, and return True; False if the process has ended, or time is over."""
    for _ in range(int(seconds / 0.1)):
        try:
            ready()
        except Exception:
            try:
                process.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
            return False  # It has ended.
        else:
            return True
    return False


@dataclass
class ObjectStore:
    """A running server with the interface of S3."""

    endpoint: str
    environment: dict[str, str] = field(init=False)
    """What a program needs to use it."""

    def __post_init__(self) -> None:
        self.environment = {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
            config=Config(connect_timeout=2, read_timeout=10, retries={"total_max_attempts": 1}),
        )

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """Return the keys of all objects."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def unfinished(self, bucket: str) -> list[str]:
        """Return the keys of the multipart uploads that are neither completed nor aborted."""
        answer = self.client.list_multipart_uploads(Bucket=bucket)
        return [upload["Key"] for upload in answer.get("Uploads", [])]


class FaultyStore(ObjectStore):
    """One that breaks as it is told."""

    def faults(self, *faults: dict[str, Any]) -> None:
        """Break like this from now on, and forget the requests before; see `faulty_s3.Fault`."""
        request = urllib.request.Request(
            f"{self.endpoint}/-faults", data=json.dumps(faults).encode(), method="PUT"
        )
        urllib.request.urlopen(request, timeout=10).close()

    def requests(self) -> list[str]:
        """Return what was asked since the last call of `faults`."""
        with urllib.request.urlopen(f"{self.endpoint}/-requests", timeout=10) as answer:
            return json.load(answer)


@contextmanager
def moto(directory: Path) -> Iterator[FaultyStore]:
    """Run a moto server, which keeps everything in memory."""

    def ready(port: int) -> None:
        _put_and_get(ObjectStore(f"http://127.0.0.1:{port}"))

    def command(port: int) -> list[str]:
        return [sys.executable, str(HERE / "faulty_s3.py"), str(port)]

    with running(command, ready, directory / "moto.log") as port:
        yield FaultyStore(f"http://127.0.0.1:{port}")


@contextmanager
def versitygw(directory: Path, in_ci: bool, *, at_once: int = 1) -> Iterator[ObjectStore]:
    """Run a versitygw server over a directory.

    It looks for an object and then makes it, so that only with one request `at_once` two writers never both
    create it.
    """
    program = program_of(*VERSITYGW, in_ci)
    kept = directory / "versitygw"
    kept.mkdir()

    def ready(port: int) -> None:
        _put_and_get(ObjectStore(f"http://127.0.0.1:{port}"))

    def command(port: int) -> list[str]:
        listen = ["--quiet", "--port", f"127.0.0.1:{port}"]
        return [str(program), *listen, "posix", "--concurrency", str(at_once), str(kept)]

    keys = {"ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY}
    with running(command, ready, directory / "versitygw.log", **keys) as port:
        yield ObjectStore(f"http://127.0.0.1:{port}")


def _put_and_get(store: ObjectStore) -> None:
    store.client.create_bucket(Bucket="ready")
    store.client.put_object(Bucket="ready", Key="key", Body=b"1")
    assert store.client.get_object(Bucket="ready", Key="key")["Body"].read() == b"1"
