"""The sink of docs/sinks.md keeps the contract with the test class that the page shows for it."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs/sinks.md"
SINK, _, TESTS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)

exec(compile(SINK + TESTS, str(PAGE), "exec"))
