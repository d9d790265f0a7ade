"""What file sinks have published, read back: records, and the counts of counting jobs."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

IN_PROGRESS = re.compile(r"\.part-.+-(?P<subtask>\d+)-(?P<attempt>\d+)-\d+\.inprogress")


def records(directory: Path) -> list[Any]:
    """Return the records in all files that are visible in a directory."""
    parts = [path for path in directory.glob("part-*") if path.is_file()]
    return [json.loads(line) for part in parts for line in part.read_text().splitlines()]


def counts_by_key(directory: Path) -> dict[Any, list[int]]:
    """Return all counts that were published for each key, sorted."""
    counts = defaultdict(list)
    for key, count in records(directory):
        counts[key].append(count)
    return {key: sorted(values) for key, values in counts.items()}


def one_to_n(keys: Iterable[Any]) -> dict[Any, list[int]]:
    """Return the counts that counting these keys exactly once publishes."""
    return {key: list(range(1, n + 1)) for key, n in Counter(keys).items()}


def unfinished(directory: Path) -> list[tuple[int, str]]:
    """Return attempt and name of each file that is not visible yet."""
    names = [path.name for path in directory.rglob("*.inprogress")]
    return sorted((int(IN_PROGRESS.fullmatch(name)["attempt"]), name) for name in names)


def tuples(value: Any) -> Any:
    """Return a value that went through JSON with tuples in place of its lists, so that it can be counted."""
    return tuple(map(tuples, value)) if isinstance(value, list) else value
