"""Access logs of both formats with broken lines, the main job over them, and what it must publish.

The pipeline is that of `jobs/access_log_count.py`, made of its own functions; tests put their own
source or sink into it.
"""

import json
import random
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from jobs.access_log_count import REJECTED, CountHits, ParseRequest
from raystream.connectors.files import FileSink, FileSource
from raystream.operators.source import Source
from tests.published import counts_by_key, one_to_n, records, unfinished

ROOT = Path(__file__).resolve().parents[1]
JOB = ROOT / "jobs" / "access_log_count.py"
REAL_LOG = ROOT.parent / "shared" / "data" / "access.log"

needs_real_log = pytest.mark.skipif(
    not REAL_LOG.exists(), reason=f"{REAL_LOG.name}: the real log is not on this machine"
)


@dataclass
class Expected:
    """What counting some logs gives."""

    lines: int = 0
    hits: Counter[str] = field(default_factory=Counter)
    rejected: list[tuple[str, int, str]] = field(default_factory=list)
    """File, byte offset and text of each line without a path."""

    def append_to(self, log: Path, *, lines: int, seed: int) -> None:
        """Write more lines to a log: both formats, both line ends, some lines broken."""
        rng = random.Random(seed)
        with log.open("ab") as file:
            for number in range(self.lines, self.lines + lines):
                target = f"/items/{int(rng.paretovariate(0.7)) % 3_000}?from=søk"
                line = _line(rng, number, target)
                if line.startswith("broken"):
                    self.rejected.append((str(log), file.tell(), line))
                else:
                    self.hits[target] += 1
                file.write(line.encode() + rng.choice([b"\n", b"\r\n"]))
        self.lines += lines


def _line(rng: random.Random, number: int, target: str) -> str:
    match rng.choices(["combined", "json", "broken"], [48, 48, 4])[0]:
        case "combined":
            when = "17/May/2026:10:05:03 +0000"
            return f'10.0.0.7 - - [{when}] "GET {target} HTTP/1.1" 200 {number} "-" "Agent/1.0"'
        case "json":
            return json.dumps({"status": 200, rng.choice(["url", "path"]): target}, ensure_ascii=False)
        case _:
            return f"broken line {number} of {target}"


def add_count(env, source: Source, out: Path, *, sink=None) -> None:
    """Build the main job; `sink` may take the place of its own one."""
    requests = env.from_source(source, uid="source").process(ParseRequest(), uid="parse")
    counts = requests.key_by(lambda path: path).process(CountHits(), uid="count-hits")
    counts.sink_to(sink or FileSink.json_lines(out), uid="sink")
    rejected = requests.get_side_output(REJECTED)
    rejected.sink_to(FileSink.json_lines(out / "rejected"), uid="rejected-sink")


def lines_of(pattern: Path, watch: str | None = None) -> FileSource:
    """Return the source of the main job."""
    return FileSource.lines(pattern, encoding=None, with_position=True, watch=watch)


# ---- what was published -----------------------------------------------------


def assert_counted_exactly_once(out: Path, expected: Expected) -> None:
    """Every path has each of the values 1..n once, every broken line was rejected once, nothing is left."""
    assert_published_exactly_once(out, expected)
    assert unfinished(out) == []


def assert_published_exactly_once(out: Path, expected: Expected) -> None:
    """Every path has each of the values 1..n once, and every broken line was rejected once."""
    assert counts_by_key(out) == one_to_n(expected.hits.elements())
    rejected = [(row["file"], row["offset"], row["line"]) for row in records(out / "rejected")]
    assert sorted(rejected) == sorted(expected.rejected)


# ---- a log that somebody else has written -------------------------------------


def assert_real_log_counted(out: Path) -> None:
    """The counts of the real log are those of an independent program."""
    requests = re.findall(r'^[^"]*"[A-Z]+ (\S+) ', REAL_LOG.read_text(), flags=re.MULTILINE)
    found = counts_by_key(out)
    assert found == one_to_n(requests)
    assert (len(found), len(requests)) == (1_498, 10_000)
    most = {path: len(found[path]) for path in ("/favicon.ico", "/style2.css", "/reset.css")}
    assert most == {"/favicon.ico": 807, "/style2.css": 546, "/reset.css": 538}
    assert records(out / "rejected") == []
    assert unfinished(out) == []
