"""Runs a job script as `__main__`, the way `python JOB.py` would."""

import builtins
import sys
import types
from collections.abc import Sequence
from pathlib import Path

from raystream.errors import ConfigError


def run_script(path: Path, arguments: Sequence[str]) -> None:
    """Execute a script as `__main__`, with its directory first on the module path.

    It stays `__main__` afterwards: its classes and functions are looked up there while its job runs.

    Args:
        path: the script.
        arguments: `sys.argv[1:]` of the script.

    Raises:
        ConfigError: the file cannot be read.
        BaseException: whatever the script raises.
    """
    try:
        source = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            "job script cannot be read",
            hint="give the path of a Python file",
            path=str(path),
            cause=error.strerror or str(error),
        ) from error
    module = types.ModuleType("__main__")
    module.__file__ = str(path.absolute())
    module.__dict__["__builtins__"] = builtins
    sys.modules["__main__"] = module
    sys.argv = [str(path), *arguments]
    sys.path[0:1] = [str(path.resolve().parent)]
    exec(compile(source, module.__file__, "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - the job
