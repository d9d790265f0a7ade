"""What an incremental checkpoint's upload to an object store costs beside a bare s3fs upload of its files.

The files are of the size that RocksDB makes them.  Both uploads go to a server on this machine, each to an
empty place, in turn, so that both see the same machine; the ratio is of their best times.

    python benchmarks/object_store.py [--size 1024] [--file-size 16] [--rounds 5] [--server versitygw|moto]
"""

import argparse
import mmap
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import s3fs
import xxhash

from raystream.handles import SharedFile
from raystream.runtime.upload import PIECE_BYTES
from raystream.storage.blobs import SnapshotFiles
from raystream.storage.filesystem import join_url
from raystream.storage.stores import open_file_system

ROOT = Path(__file__).resolve().parent.parent
MIB = 1 << 20
BUCKET = "benchmark"


def make_files(directory: Path, size_mib: int, file_mib: int) -> list[Path]:
    """Write files of noise, as compressed state looks like, and return their paths."""
    directory.mkdir()
    paths = [directory / f"{number:06d}.sst" for number in range(max(1, size_mib // file_mib))]
    for path in paths:
        path.write_bytes(os.urandom(file_mib * MIB))
    return paths


def upload_ours(files: SnapshotFiles, paths: list[Path], checkpoint: str) -> None:
    """Store the files as a checkpoint does, checksums included."""

    def store(path: Path) -> None:
        with path.open("rb") as file:
            content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        checksum = xxhash.xxh3_64_hexdigest(content)
        shared = SharedFile(
            name=path.name, local=path.name, created_by=1, size_bytes=len(content), checksum=checksum
        )
        pieces = [content[at : at + PIECE_BYTES] for at in range(0, len(content), PIECE_BYTES)]
        files.write_shared(checkpoint, shared, pieces)

    files.each(checkpoint, store, paths)


def upload_bare(fs: s3fs.S3FileSystem, paths: list[Path], directory: str) -> None:
    """Store the files as s3fs does when it is given all of them."""
    fs.put([str(path) for path in paths], [join_url(directory, path.name) for path in paths])


def seconds_of(work, *arguments) -> float:
    """Return how long a call takes."""
    before = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - before


def measure(paths: list[Path], size_mib: int, rounds: int) -> None:
    """Upload both ways in turn, and print the speeds."""
    files, bare = SnapshotFiles(), s3fs.S3FileSystem(use_listings_cache=False)
    best_ours = best_bare = 0.0
    print(f"{'round':>8}{'raystream':>12}{'s3fs':>12}{'ratio':>12}")
    for number in range(1, rounds + 1):
        ours = size_mib / seconds_of(upload_ours, files, paths, f"s3://{BUCKET}/ours/chk-1")
        theirs = size_mib / seconds_of(upload_bare, bare, paths, f"s3://{BUCKET}/theirs")
        open_file_system(f"s3://{BUCKET}").delete_dir(f"s3://{BUCKET}")
        best_ours, best_bare = max(best_ours, ours), max(best_bare, theirs)
        print(f"{number:>8}{ours:>12.0f}{theirs:>12.0f}{ours / theirs:>12.2f}")
    print(f"{'best':>8}{best_ours:>12.0f}{best_bare:>12.0f}{best_ours / best_bare:>12.2f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=1024, help="MiB in all")
    parser.add_argument("--file-size", type=int, default=16, help="MiB of a file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--server", choices=["versitygw", "moto"], default="versitygw")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from tests.services.servers import moto, versitygw

    with tempfile.TemporaryDirectory(prefix="rs") as name, ExitStack() as stack:
        scratch = Path(name)
        paths = make_files(scratch / "state", options.size, options.file_size)
        if options.server == "moto":
            server = stack.enter_context(moto(scratch))
        else:
            server = stack.enter_context(versitygw(scratch, in_ci=True, at_once=5_000))
        os.environ.update(server.environment)
        server.client.create_bucket(Bucket=BUCKET)
        print(f"{len(paths)} files of {options.file_size} MiB to {options.server}, MiB/s")
        measure(paths, options.size, options.rounds)


if __name__ == "__main__":
    main()
