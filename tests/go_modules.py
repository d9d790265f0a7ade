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
            done = _go(["install", f"{module}@{version}"], GOBIN=str(program.parent))
            if done.returncode:
                missing(f"{name} cannot be fetched: {(done.stderr or done.stdout)[-300:]}", in_ci)
    return program


def directory_of(module: str, version: str) -> Path | None:
    """Return the directory of a Go module's files, fetched at its first use; None when that fails."""
    done = _go(["mod", "download", "-json", f"{module}@{version}"])
    return None if done.returncode else Path(json.loads(done.stdout)["Dir"])


def _go(arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("go") is None:
        return subprocess.CompletedProcess(arguments, 1, "", "Go is not installed")
    return subprocess.run(
        ["go", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS_MAX,
        check=False,
    )
