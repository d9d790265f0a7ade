"""The program of docs/event-time.md counts as the page says, and passes the test that the page shows."""

import json
import re
import subprocess
import sys
from pathlib import Path

from tests.published import records

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs/event-time.md"
PROGRAM, TESTS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)

exec(compile(PROGRAM.replace("__main__", "") + TESTS, str(PAGE), "exec"))


def test_program_counts_every_reading_once(tmp_path):
    readings = [{"sensor": f"s{n % 3}", "time_ms": n * 500} for n in range(1_000)]
    lines = tmp_path / "readings.jsonl"
    lines.write_text("".join(f"{json.dumps(reading)}\n" for reading in readings))
    program = tmp_path / "readings.py"
    program.write_text(PROGRAM)

    command = [sys.executable, "-m", "raystream.cli", "run", "--runner", "local", "-p", "2", program]
    subprocess.run([*command, lines, tmp_path / "out"], check=True, cwd=ROOT, capture_output=True)

    expected = {}
    for reading in readings:
        minute = reading["sensor"], reading["time_ms"] // 60_000 * 60_000 + 60_000
        expected[minute] = expected.get(minute, 0) + 1
    counted = [(row["sensor"], row["until_ms"], row["readings"]) for row in records(tmp_path / "out/counts")]
    assert sorted(counted) == sorted((*minute, n) for minute, n in expected.items())
    assert records(tmp_path / "out/late") == []
