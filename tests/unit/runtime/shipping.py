"""Ships functions from a script in one process to others: the two halves, for tests.

A script calls `ship(path, name=function, ...)`.  `call` unpacks the program in a fresh process, calls the
functions of these names there and returns the texts of their results; with `dump` it pickles the last
result into a file by plain pickle, with `load` it passes what was pickled there to each function.

A fresh process is forked from one that has imported no more than this module.
"""

import multiprocessing
import os
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from raystream.config.options import JobConfig
from raystream.graph.physical import OperatorNode, PhysicalPlan, Vertex
from raystream.ids import OperatorUid, VertexId
from raystream.runtime.program import Program, pack, unpack

ROOT = Path(__file__).resolve().parents[3]

_FRESH = multiprocessing.get_context("forkserver")
_FRESH.set_forkserver_preload([__name__])


class Keep:
    """A factory whose "operator" is the function itself."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self) -> Any:
        return self.function


def program_of(**functions: Any) -> Program:
    """Return a program with one operator for each function."""
    operators = tuple(
        OperatorNode(
            uid=OperatorUid(name), uid_generated=False, name=name, factory=Keep(function), stateful=False
        )
        for name, function in functions.items()
    )
    vertex = Vertex(
        id=VertexId(0),
        name="all",
        parallelism=1,
        max_parallelism=128,
        slot_offset=0,
        operators=operators,
        keyed=False,
    )
    plan = PhysicalPlan(vertices=(vertex,), edges=())
    return Program(job_name="job", plan=plan, config=JobConfig())


def ship(path: str, **functions: Any) -> None:
    """Write the program of these functions to a file."""
    Path(path).write_bytes(pack(program_of(**functions)))


def functions_in(data: bytes) -> dict[str, Any]:
    """Return fresh functions of a packed program, by name."""
    (vertex,) = unpack(data).plan.vertices
    return {node.name: node.factory() for node in vertex.operators}


def python(*arguments: Any, cwd: Path = ROOT) -> str:
    """Run a Python process to its end and return what it printed.

    Raises:
        AssertionError: it failed; with what it wrote to standard error.
    """
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


END = """
if __name__ == "__main__":
    import sys
    from tests.unit.runtime.shipping import ship
    ship(sys.argv[1], make=make, check=check)
"""

"""What a script that ships its functions `make` and `check` ends with."""


def call(
    programs: Iterable[Path], *names: str, dump: Path | None = None, load: Path | None = None
) -> list[str]:
    """Unpack programs one after the other in a fresh process, and call functions of each."""
    with ProcessPoolExecutor(1, mp_context=_FRESH) as fresh:
        return fresh.submit(_call, tuple(programs), names, dump, load).result()


def _call(
    programs: tuple[Path, ...], names: tuple[str, ...], dump: Path | None, load: Path | None
) -> list[str]:
    results = []
    for program in programs:
        functions = functions_in(program.read_bytes())
        loaded = [pickle.loads(load.read_bytes())] if load else []
        for name in names:
            result = functions[name](*loaded)
            results.append(str(result))
            if dump:
                dump.write_bytes(pickle.dumps(result))
    return results


class Scripts:
    """Runs scripts in a directory, and what they ship elsewhere."""

    def __init__(self, directory):
        self.directory = directory
        self.program = directory / "program.bin"
        self.records = directory / "records.bin"

    def write(self, name, source):
        (self.directory / name).write_text(textwrap.dedent(source))

    def run(self, source, *, name="my_job.py", end=END):
        """Write and run a script that ships its functions `make` and `check`."""
        self.write(name, textwrap.dedent(source) + end)
        return python(name, self.program, cwd=self.directory)

    def call(self, *names, **files):
        return call([self.program], *names, **files)
