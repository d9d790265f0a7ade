"""The layers, limits and bans of the style guide, enforced on every file.

Each rule is a function from one parsed file to the complaints about it, so that the tests
at the end can also show that every rule finds what it is there to find.
"""

import ast
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# ---- the rules as data ------------------------------------------------------

LAYERS = (
    {"errors", "ids", "clock", "keygroup", "keys", "handles", "metrics"},
    {"records", "config"},
    {"protocol", "graph"},
    {"state", "storage"},
    {"operators", "savepoint"},
    {"api", "connectors"},
    {"runtime"},
    {"cluster"},
    {"raystream"},  # the package root, which binds runners to the API
    {"cli"},
    {"testing"},
)
"""Lowest first.  A module imports from layers below its own and from its own package."""

SHARED_BY_LAYER_0 = {"errors", "ids", "keygroup"}

PROTOCOL_STDLIB = {
    "__future__", "abc", "bisect", "collections", "dataclasses", "enum", "functools", "heapq", "itertools",
    "math", "operator", "random", "types", "typing",
}  # fmt: skip

ONLY_IN = {
    "ray": "raystream/cluster/",
    "rocksdict": "raystream/state/rocksdb.py",
    "s3fs": "raystream/storage/s3.py",
    "hdfs_native": "raystream/storage/hdfs.py",
    "confluent_kafka": "raystream/connectors/kafka.py",
    "kubernetes": "raystream/cluster/k8s.py",
}
"""Packages that only one place of the package knows."""

PUBLIC = re.compile(r"raystream(\.connectors(\.[a-z]\w*)?)?")
"""What jobs may import."""

MODULE_LINES_MAX, MODULE_LINES_HARD = 400, 600
FUNCTION_LINES_MAX, FUNCTION_LINES_HARD = 50, 70
POSITIONAL_MAX = 5

RATCHET: dict[str, int] = {}
"""Length of each module (`path`) and function (`path::name`) that is over its limit; may only shrink."""

SLEEPS = {"time.sleep", "asyncio.sleep"}
CLOCKS = {
    *(f"time.{name}{suffix}" for name in ("time", "monotonic", "perf_counter", "process_time", "thread_time")
      for suffix in ("", "_ns")),
    "datetime.now", "datetime.utcnow", "datetime.today", "date.today",
    "datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today", "datetime.date.today",
}  # fmt: skip

VAGUE_MODULES = {"utils", "util", "common", "helpers", "helper", "base", "manager", "misc"}
LEFTOVERS = re.compile(r"\b(TODO|FIXME|XXX|HACK|NotImplementedError)\b")

PYTHON_DIRECTORIES = ("raystream", "jobs", "tests", "benchmarks")
TEXT_DIRECTORIES = (*PYTHON_DIRECTORIES, ".ci", "changelog.d", "configs", "docs", "k8s")
TEXT_FILES = ("CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "pyproject.toml")
"""Named, since users may put files of their own beside them."""
TEXT_SUFFIXES = {"", ".md", ".py", ".toml", ".yaml", ".yml", ".json", ".cfg", ".txt"}


# ---- one parsed file --------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """One Python file."""

    path: str
    """Relative to the repository, with `/`."""
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, filename=self.path)

    @cached_property
    def imports(self) -> tuple[str, ...]:
        """Every imported module or name, dotted; relative ones do not occur (ruff forbids them)."""
        names: list[str] = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                names += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names += [f"{node.module}.{alias.name}" for alias in node.names]
        return tuple(names)

    @cached_property
    def calls(self) -> tuple[str, ...]:
        """Dotted names of everything that is called, as the file spells them."""
        called = (ast.unparse(node.func) for node in ast.walk(self.tree) if isinstance(node, ast.Call))
        return tuple(name for name in called if name.replace(".", "").isidentifier())

    @property
    def unit(self) -> str | None:
        """Name in `LAYERS` of the module or package that the file belongs to; None outside the package."""
        parts = Path(self.path).with_suffix("").parts
        if parts[0] != "raystream":
            return None
        return "raystream" if parts[1] in ("__init__", "__main__") else parts[1]


def layer(unit: str) -> int | None:
    return next((number for number, units in enumerate(LAYERS) if unit in units), None)


# ---- rules ------------------------------------------------------------------


def imports_go_down_only(source: Source) -> Iterator[str]:
    if source.unit is None:
        return
    own = layer(source.unit)
    if own is None:
        yield f"{source.unit} has no place in LAYERS"
        return
    for name in source.imports:
        package, _, rest = name.partition(".")
        if package != "raystream":
            continue
        target = rest.split(".")[0]
        target = target if layer(target) is not None else "raystream"
        other = layer(target)
        assert other is not None
        siblings = own == other == 0 and target in SHARED_BY_LAYER_0
        if target != source.unit and other >= own and not siblings:
            yield f"imports {name}, which is not below it"


def protocol_is_pure(source: Source) -> Iterator[str]:
    if source.unit != "protocol":
        return
    for name in source.imports:
        package, _, rest = name.partition(".")
        if package != "raystream" and package not in PROTOCOL_STDLIB:
            yield f"imports {package}, which a state machine does not need"
        if rest.split(".")[0] == "clock":
            yield "imports the clock, though time comes in as an argument"


def packages_stay_where_they_belong(source: Source) -> Iterator[str]:
    for package in sorted({name.partition(".")[0] for name in source.imports}):
        home = ONLY_IN.get(package)
        if home and source.path.startswith(("raystream/", "jobs/")) and not source.path.startswith(home):
            yield f"imports {package}, which only {home} may"


def jobs_use_the_public_api(source: Source) -> Iterator[str]:
    if not source.path.startswith("jobs/"):
        return
    for name in source.imports:
        module, _, imported = name.rpartition(".")
        public = PUBLIC.fullmatch(name) or (PUBLIC.fullmatch(module) and not imported.startswith("_"))
        if name.partition(".")[0] == "raystream" and not public:
            yield f"imports {name}, which is not public"


def files_and_functions_are_short(source: Source) -> Iterator[str]:
    lines = source.text.count("\n")
    yield from _too_long(source.path, lines, MODULE_LINES_MAX, MODULE_LINES_HARD)
    for function in _functions(source.tree):
        assert function.end_lineno is not None
        lines = function.end_lineno - function.lineno + 1
        name = f"{source.path}::{function.name}"
        yield from _too_long(name, lines, FUNCTION_LINES_MAX, FUNCTION_LINES_HARD)


def _too_long(name: str, lines: int, maximum: int, hard: int) -> Iterator[str]:
    recorded = RATCHET.get(name, maximum)
    if lines > hard:
        yield f"{name} has {lines} lines, and nothing may have more than {hard}"
    elif lines > recorded:
        yield f"{name} has {lines} lines, more than {recorded}"
    elif name in RATCHET and lines < recorded:
        yield f"{name} has shrunk to {lines} lines: lower its entry in RATCHET, or drop it"


def parameters_are_few(source: Source) -> Iterator[str]:
    for function in _functions(source.tree):
        names = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
        count = len(names) - (names[:1] in (["self"], ["cls"]))
        if count > POSITIONAL_MAX:
            yield f"{function.name} takes {count} positional parameters, more than {POSITIONAL_MAX}"


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def nothing_sleeps(source: Source) -> Iterator[str]:
    if source.path.startswith(("raystream/", "tests/")):
        yield from (f"sleeps: {name}" for name in sorted({*source.calls, *source.imports} & SLEEPS))


def nothing_is_placed_by_salted_hash(source: Source) -> Iterator[str]:
    if source.unit is not None and "hash" in source.calls:
        yield "calls the built-in hash, which differs from process to process"


def only_the_clock_reads_clocks(source: Source) -> Iterator[str]:
    if source.unit not in (None, "clock"):
        yield from (f"reads a clock: {name}" for name in sorted({*source.calls, *source.imports} & CLOCKS))


def nothing_is_left_over(source: Source) -> Iterator[str]:
    if source.path != "tests/test_tidy.py":  # which must name them
        yield from (f"has a left-over: {match[0]}" for match in LEFTOVERS.finditer(source.text))


def names_say_something(source: Source) -> Iterator[str]:
    for part in Path(source.path).with_suffix("").parts:
        if part.strip("_").removeprefix("test_") in VAGUE_MODULES:
            yield f"is called {part}, which says nothing"


RULES: tuple[Callable[[Source], Iterator[str]], ...] = (
    imports_go_down_only,
    protocol_is_pure,
    packages_stay_where_they_belong,
    jobs_use_the_public_api,
    files_and_functions_are_short,
    parameters_are_few,
    nothing_sleeps,
    nothing_is_placed_by_salted_hash,
    only_the_clock_reads_clocks,
    nothing_is_left_over,
    names_say_something,
)


# ---- the tree keeps them ----------------------------------------------------


def _files(directories: tuple[str, ...], suffixes: set[str]) -> Iterator[Path]:
    for directory in directories:
        for path in sorted((ROOT / directory).rglob("*")):
            if path.is_file() and path.suffix in suffixes and "__pycache__" not in path.parts:
                yield path


SOURCES = [
    Source(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
    for path in _files(PYTHON_DIRECTORIES, {".py"})
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_file_keeps_the_rule(rule):
    assert [f"{source.path}: {complaint}" for source in SOURCES for complaint in rule(source)] == []


def test_ratchet_holds_only_what_exists():
    names = {source.path for source in SOURCES}
    names |= {f"{source.path}::{f.name}" for source in SOURCES for f in _functions(source.tree)}

    assert set(RATCHET) <= names


def test_no_file_mentions_a_path_of_this_machine():
    top = [ROOT / name for name in TEXT_FILES]
    own = _machine_paths()

    assert [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in (*_files(TEXT_DIRECTORIES, TEXT_SUFFIXES), *top)
        for match in own.finditer(path.read_text(encoding="utf-8", errors="replace"))
    ] == []


def _machine_paths() -> re.Pattern[str]:
    places = {ROOT, ROOT.parent, Path.home(), Path(sys.prefix)}
    shared = {Path("/"), Path("/tmp"), Path(tempfile.gettempdir())}
    return re.compile("|".join(re.escape(f"{place}/") for place in sorted(places - shared)))


# ---- the rules find what they are there to find -----------------------------


@pytest.mark.parametrize(
    ("rule", "path", "text"),
    [
        (imports_go_down_only, "raystream/state/heap.py", "from raystream.runtime import slot"),
        (imports_go_down_only, "raystream/state/heap.py", "from raystream.storage.layout import Layout"),
        (imports_go_down_only, "raystream/state/heap.py", "import raystream.testing.harness"),
        (imports_go_down_only, "raystream/state/heap.py", "from raystream import ValueStateDescriptor"),
        (imports_go_down_only, "raystream/state/heap.py", "def f():\n    from raystream.api import stream"),
        (imports_go_down_only, "raystream/ids.py", "from raystream.clock import Clock"),
        (imports_go_down_only, "raystream/gadgets/x.py", ""),
        (protocol_is_pure, "raystream/protocol/job.py", "import logging"),
        (protocol_is_pure, "raystream/protocol/job.py", "from raystream.clock import Clock"),
        (packages_stay_where_they_belong, "raystream/runtime/slot.py", "import ray"),
        (packages_stay_where_they_belong, "raystream/cli/main.py", "from ray.util import state"),
        (packages_stay_where_they_belong, "raystream/state/heap.py", "import rocksdict"),
        (jobs_use_the_public_api, "jobs/x.py", "from raystream.runtime.slot import Slot"),
        (jobs_use_the_public_api, "jobs/x.py", "import raystream.api.stream"),
        (jobs_use_the_public_api, "jobs/x.py", "from raystream import _runners"),
        (files_and_functions_are_short, "raystream/x.py", "x = 1\n" * 401),
        (files_and_functions_are_short, "raystream/x.py", "def f():\n" + "    x = 1\n" * 50),
        (parameters_are_few, "raystream/x.py", "def f(a, b, c, d, e, f): ..."),
        (nothing_sleeps, "tests/test_x.py", "import time\ntime.sleep(1)"),
        (nothing_sleeps, "raystream/x.py", "from asyncio import sleep"),
        (nothing_is_placed_by_salted_hash, "raystream/x.py", "hash(key) % 2"),
        (only_the_clock_reads_clocks, "raystream/x.py", "import time\ntime.monotonic()"),
        (only_the_clock_reads_clocks, "raystream/x.py", "from time import time_ns"),
        (only_the_clock_reads_clocks, "raystream/x.py", "datetime.now()"),
        (nothing_is_left_over, "raystream/x.py", "# TODO: later"),
        (nothing_is_left_over, "raystream/x.py", "raise NotImplementedError"),
        (names_say_something, "raystream/state/utils.py", ""),
        (names_say_something, "tests/test_helpers.py", ""),
    ],
)  # fmt: skip
def test_rule_finds_the_fault(rule, path, text):
    assert list(rule(Source(path, text)))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("raystream/state/heap.py", "from raystream.errors import StateError\nimport raystream.state.schema"),
        ("raystream/handles.py", "from raystream.keygroup import KeyGroupRange"),
        ("raystream/__init__.py", "from raystream.cluster.client import run"),
        ("raystream/testing/harness.py", "from raystream import StreamEnvironment"),
        ("raystream/protocol/job.py", "from raystream.ids import JobId\nfrom collections import deque"),
        ("raystream/cluster/worker.py", "import ray"),
        ("jobs/x.py", "from raystream import OutputTag\nfrom raystream.connectors.files import FileSink"),
        ("raystream/clock.py", "import time\ntime.monotonic()"),
        ("raystream/x.py", "class C:\n    def f(self, a, b, c, d, e, *, g): ..."),
    ],
)
def test_rules_leave_what_is_right_alone(path, text):
    rules = [rule for rule in RULES if path != "raystream/x.py" or rule is not imports_go_down_only]

    assert [complaint for rule in rules for complaint in rule(Source(path, text))] == []
