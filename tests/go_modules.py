"""Programs and files of Go modules that tests need; Go's own check of what it fetches vouches for them."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

from tests.services.processes import CACHE, fetching, missing

BUILD_SECONDS_MAX = 1_200.0


def program_of(module: str, version: str, in_ci: bool) -> Path:
    """Return a program of a Go module, built at its first use on this machine."""
    *_, before, last = module.split("/")
    name = before if re.fullmatch(r"v\d+", last) else last
    program = CACHE / f"{name}-{version}" / name
    with fetching():
        if not program.exists():
            _go(["install", f"{module}@{version}"], name, in_ci, GOBIN=str(program.parent))
    return program


def directory_of(module: str, version: str, in_ci: bool) -> Path:
    """Return the directory of a Go module's files, fetched at its first use on this machine."""
    answer = _go(["mod", "download", "-json", f"{module}@{version}"], module, in_ci)
    return Path(json.loads(answer)["Dir"])


def _go(arguments: list[str], what: str, in_ci: bool, **environment: str) -> str:
    if shutil.which("go") is None:
        missing(f"{what} cannot be fetched: Go is not installed", in_ci)
    done = subprocess.run(
        ["go", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS_MAX,
        check=False,
    )
    if done.returncode:
        missing(f"{what} cannot be fetched: {(done.stderr or done.stdout)[-300:]}", in_ci)
    return done.stdout
