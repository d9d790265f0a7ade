"""How long `raystream state ls` and `get` take on a canonical savepoint of a gigabyte.

The savepoint is written by `raystream.savepoint.write`, with values of noise, which do not compress.  Each
command is a process of its own, its start included; figures are seconds, the median of the rounds.  Beside
them stands `raystream --version`, which is the start alone.

    python benchmarks/state_tools.py [--size 1000] [--operators 4] [--rounds 5]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa

import raystream.savepoint
from raystream import ValueStateDescriptor
from raystream.savepoint import KeyedState

VALUE_BYTES = 1000
LS_GOAL_S = 2.0
"""Of a gigabyte, at most."""


def write(path: str, operators: int, megabytes: int) -> None:
    """Write a savepoint of so many megabytes in all."""
    keys = [f"user-{n}" for n in range(megabytes * 1_000_000 // VALUE_BYTES // operators)]
    states = []
    for operator in range(operators):
        noise = pa.py_buffer(os.urandom(len(keys) * VALUE_BYTES))
        values = pa.FixedSizeBinaryArray.from_buffers(pa.binary(VALUE_BYTES), len(keys), [None, noise])
        table = pa.table({"key": keys, "value": values.cast(pa.binary())})
        states.append(KeyedState(f"operator-{operator}", ValueStateDescriptor("payload", bytes), table))
    raystream.savepoint.write(path, states, job_name="state tools", max_parallelism=128)


def seconds_of(*arguments: str) -> float:
    """Run a command; return how long it took."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "raystream.cli", *arguments], check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=1000, help="MB")
    parser.add_argument("--operators", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rs") as scratch:
        savepoint = str(Path(scratch) / "savepoint")
        started = time.perf_counter()
        write(savepoint, options.operators, options.size)
        print(f"{'write':12}{time.perf_counter() - started:8.2f} s")
        commands = {
            "--version": ("--version",),
            "state ls": ("state", "ls", savepoint),
            "state get": ("state", "get", savepoint, "operator-0", "payload", "user-7"),
        }
        rounds = [{name: seconds_of(*line) for name, line in commands.items()} for _ in range(options.rounds)]
    for name in commands:
        median = statistics.median(found[name] for found in rounds)
        goal = ""
        if name == "state ls" and options.size >= 1000:
            goal = "   goal kept" if median <= LS_GOAL_S else "   GOAL MISSED"
        print(f"{name:12}{median:8.2f} s{goal}")


if __name__ == "__main__":
    main()
