"""The code of a job: what the script defines, in a form that other processes can load.

A script runs as `__main__`; everywhere else its classes and functions live in a *job
module* with the stable name of the script's file, `access_log_count` for
`jobs/access_log_count.py`.  Instances of its classes can therefore be pickled by
reference in the exchange, in state and in savepoints, and be loaded by a later run.

    client                              worker
    find_script, give_stable_names      install: make the job module, fill it
    JobCodeWriter.add(names)     ->     then load functions that refer to it
    JobCodeWriter.finish()

In the client's own process the job module is the script itself, so with the local runner
functions are the very ones that the script defined.

Definitions are written in the order of the script, constants first, so that whatever is
made while loading finds what it found when the script ran.
"""

import contextlib
import importlib.util
import io
import pickle
import re
import sys
import threading
import types
import uuid
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raystream.errors import ConfigError
from raystream.runtime.job_classes import run_deferred
from raystream.runtime.job_modules import (
    ShippedModule,
    SourceLoader,
    collect_modules,
    install_modules,
    is_installed,
    read_source,
)
from raystream.runtime.job_pickle import LOCAL_CLASSES, JobPickler, Script

INTERACTIVE_NAME = "raystream_job"
"""Name of the job module where there is no script: in notebooks, in a REPL, under a test runner."""

_CONSTANTS = (type(None), bool, int, float, complex, str, bytes, types.ModuleType)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCode:
    """Everything that a process must load before it can load the job's functions."""

    id: str
    """Different for every submission; a process loads each code once."""
    module: str
    """Stable name of the script."""
    path: str
    """File of the script, for tracebacks."""
    source: str
    definitions: bytes
    """Pickled (name, value) pairs, one after the other, and None behind the last."""
    modules: Mapping[str, ShippedModule]


# ---- the script -------------------------------------------------------------


def find_script() -> Script:
    """Return the script that runs as `__main__`, or an empty one if that is no code of the user."""
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    if file is None:
        return Script(INTERACTIVE_NAME, main)
    path = Path(file).resolve()
    if is_installed(path):
        return Script(INTERACTIVE_NAME, types.ModuleType(INTERACTIVE_NAME))
    stem = path.parent.name if path.stem == "__main__" else path.stem
    return Script(re.sub(r"\W", "_", stem), main)


def give_stable_names(script: Script) -> None:
    """Say of everything that the script defines that it is from the job module.

    Raises:
        ConfigError: another module has the name.
    """
    _check_name_is_free(script)
    for value in list(script.names.values()):
        _rename(value, script.name)
    sys.modules[script.name] = script.module


def _rename(value: Any, module: str) -> None:
    named = isinstance(value, type | types.FunctionType) or hasattr(value, "__wrapped__")
    if not named or getattr(value, "__module__", None) != "__main__":
        return
    with contextlib.suppress(AttributeError, TypeError):  # Some callables forbid it; they go by value.
        value.__module__ = module
    if isinstance(value, type):
        for attribute in list(vars(value).values()):
            if isinstance(attribute, type):
                _rename(attribute, module)


def _check_name_is_free(script: Script) -> None:
    if script.module is sys.modules.get(script.name) or script.name == INTERACTIVE_NAME:
        return
    own_file = getattr(script.module, "__file__", None)
    other = sys.modules.get(script.name)
    if other is not None:
        if other.__name__ == "__main__" or getattr(other, LOCAL_CLASSES, None) is not None:
            return  # A script that ran before in this process.
        other_file = getattr(other, "__file__", None)
    else:
        with contextlib.suppress(ImportError, ValueError):
            spec = importlib.util.find_spec(script.name)
            other_file = None if spec is None else spec.origin
    ...
