"""Which files Ray packs of a directory that a job takes along."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from raystream.cluster import _ray_compat as compat


def packed_files(directory: Path, excludes: Sequence[str]) -> Iterator[tuple[Path, int]]:
    """Yield path and size in bytes of each file that Ray would pack.

    Args:
        directory: what is packed; its `.gitignore` and `.rayignore` files count, those below it too.
        excludes: further patterns in their syntax.
    """
    left_out = compat.exclusion(directory, list(excludes))
    yield from _walk(directory, [left_out])


def _walk(directory: Path, left_out: list[compat.Exclusion]) -> Iterator[tuple[Path, int]]:
    rules = [*left_out, *compat.exclusions_of_files(directory)]
    if any(rule(directory) for rule in rules):
        return
    for path in sorted(directory.iterdir()):
        if path.is_dir():
            yield from _walk(path, rules)
        elif path.is_file() and not any(rule(path) for rule in rules):
            yield path, path.stat().st_size
