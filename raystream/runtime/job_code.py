"""The code of a job: what the script defines, in a form that other processes can load.

A script runs as `__main__`; everywhere else its classes and functions live in a *job
module* with the stable name of the script's file, `access_log_count` for
`jobs/access_log_count.py`.  Instances of its classes can therefore be pickled by
reference in the exchange, in state and in savepoints, and be loaded by a later run.

    client                                     any process
    find_script, give_stable_names             install(code): make the job module, fill it
    JobCodeWriter.pickle(function), ...   ->   loads(pickled function), ...
    JobCodeWriter.finish() -> JobCode

In the client's own process the job module is the script itself, so with the local runner
functions are the very ones that the script defined.

Definitions are written in the order of the script, constants first, so that whatever is
made while loading finds what it found when the script ran.
"""

import contextlib
import functools
import importlib.util
import io
import pickle
import re
import sys
import threading
import types
import typing
import uuid
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raystream.errors import ConfigError
from raystream.runtime.job_classes import deferral
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


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCode:
    """Everything that a process must load before it can load the job's functions."""

    id: str
    """Different for every submission; a process loads each code once."""
    module: str
    """Stable name of the script."""
    path: str
    """File of the script for tracebacks, empty where there is none."""
    source: str
    definitions: bytes
    """Pickled (name, value) pairs, one after the other, and None behind the last."""
    modules: Mapping[str, ShippedModule]


# ---- the script -------------------------------------------------------------

_no_script = types.ModuleType(INTERACTIVE_NAME)


def find_script() -> Script:
    """Return the script that runs as `__main__`, or an empty one if that is no code of the user."""
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    if file is None or file.startswith("<"):  # Such as `<stdin>`.
        return Script(INTERACTIVE_NAME, main)
    path = Path(file).resolve()
    if is_installed(path):
        return Script(INTERACTIVE_NAME, _no_script)
    stem = path.parent.name if path.stem == "__main__" else path.stem
    return Script(re.sub(r"\W", "_", stem), main)


def give_stable_names(script: Script) -> None:
    """Let everything that the script defines be from the job module, and that module be the script.

    Raises:
        ConfigError: another module has the name.
    """
    _check_name_is_free(script)
    for value in list(script.names.values()):
        _rename(value, script.name)
    script.names.setdefault(LOCAL_CLASSES, {})
    sys.modules[script.name] = script.module


_NAMED = (type, types.FunctionType, typing.NewType, type(functools.lru_cache(len)))
"""Types of values that say from which module they are."""


def _rename(value: Any, module: str) -> None:
    if not isinstance(value, _NAMED) or value.__module__ != "__main__":
        return
    with contextlib.suppress(AttributeError, TypeError):  # Some callables forbid it; they go by value.
        value.__module__ = module
    if isinstance(value, type):
        for attribute in list(vars(value).values()):
            if isinstance(attribute, type):
                _rename(attribute, module)


def _check_name_is_free(script: Script) -> None:
    other = sys.modules.get(script.name)
    if other is not None and LOCAL_CLASSES in vars(other):
        return  # The script itself, or one that ran before in this process.
    other_file = _file_of_import(script.name) if other is None else getattr(other, "__file__", None)
    if other is None and other_file is None:
        return
    own_file = getattr(script.module, "__file__", None)
    if not (own_file and other_file and Path(own_file).resolve() == Path(other_file).resolve()):
        raise ConfigError(
            "script has the name of another module, so its classes would be taken for that one's",
            hint="rename the script",
            script=own_file,
            module=other_file or script.name,
        )
    if other is not None:
        raise ConfigError(
            "script is imported by one of the modules that it imports",
            hint="move what both need into a module of its own, so that its classes exist once",
            script=own_file,
        )


def _path_of(script: Script) -> Path | None:
    """Return the file of the script, if it has one that can be read."""
    file = getattr(script.module, "__file__", None)
    path = None if file is None else Path(file).resolve()
    return path if path is not None and path.is_file() else None


def _file_of_import(name: str) -> str | None:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    return None if spec is None else spec.origin


# ---- writing ----------------------------------------------------------------


class UnshippableError(Exception):
    """A definition of the script cannot be pickled.

    Attributes:
        owner: whose function needs it, as `JobCodeWriter.pickle` was told; empty if nobody's does.
        name: global of the script, or the class.
        value: what it stands for.
    """

    def __init__(self, owner: str, name: str, value: Any) -> None:
        super().__init__(owner, name)
        self.owner = owner
        self.name = name
        self.value = value


class JobCodeWriter:
    """Pickles the functions of a job, and then the code that they need.

    Args:
        script: has stable names already.
    """

    def __init__(self, script: Script) -> None:
        self._script = script
        self._needed_by: dict[str, str] = {}
        """Global of the script -> owner of the first function that uses it."""
        self._local_classes: dict[int, type] = {}
        self._local_class_of: dict[int, str] = {}
        """Number of a class -> owner of the first function that uses it."""
        self._modules: dict[str, None] = {}

    def pickle(self, obj: Any, *, owner: str) -> bytes:
        """Return an object as bytes for `loads`; what it uses of the script becomes part of the code.

        Args:
            obj: a function, or something that holds functions.
            owner: whose it is, for errors.

        Raises:
            Exception: something in it cannot be pickled; pickle and objects raise what they like.
        """
        file = io.BytesIO()
        pickler = JobPickler(file, self._script, by_value=False)
        pickler.dump(obj)
        for name in pickler.needed:
            self._needed_by.setdefault(name, owner)
        for number in pickler.local_classes:
            self._local_class_of.setdefault(number, owner)
        self._local_classes.update(pickler.local_classes)
        self._modules.update(pickler.modules)
        return file.getvalue()

    def ships(self, obj: Any) -> bool:
        """Tell whether `pickle` would take an object."""
        try:
            JobPickler(io.BytesIO(), self._script, by_value=False).dump(obj)
        except Exception:
            return False
        return True

    def finish(self) -> JobCode:
        """Return the code that everything pickled so far needs.

        Raises:
            UnshippableError: something that is needed cannot be pickled.
            ConfigError: a module that is needed cannot be shipped.
        """
        # A class that no function names may still be looked for, by `__subclasses__()` or in
        # restored state, so all are shipped, unless one that nobody needs cannot be.
        try:
            definitions = self._definitions([*self._needed_by, *self._classes()])
        except UnshippableError:
            definitions = self._definitions(self._needed_by)
        path = _path_of(self._script)
        code = JobCode(
            id=uuid.uuid4().hex,
            module=self._script.name,
            path=str(path or ""),
            source=read_source(path) if path else "",
            definitions=definitions,
            modules=collect_modules(path, self._modules),
        )
        _installed[code.id] = self._script.module
        return code

    def _classes(self) -> list[str]:
        return [
            name
            for name, value in self._script.names.items()
            if isinstance(value, type) and value.__module__ == self._script.name
        ]

    def _definitions(self, names: Iterable[str]) -> bytes:
        needed = self._with_needed(names)
        in_script_order = [name for name in self._script.names if name in needed]
        file = io.BytesIO()
        pickler = JobPickler(file, self._script, by_value=True)
        for name in sorted(in_script_order, key=self._loading_rank):
            pickler.dump((name, self._script.names[name]))
        pickler.dump((LOCAL_CLASSES, self._local_classes))
        pickler.dump(None)
        self._modules.update(pickler.modules)
        return file.getvalue()

    def _with_needed(self, names: Iterable[str]) -> set[str]:
        """Return the names and all others that their values use, directly or not."""
        pickler = JobPickler(io.BytesIO(), self._script, by_value=True)
        owners = {name: self._needed_by.get(name, "") for name in names}
        for number, cls in self._local_classes.items():
            owner = self._local_class_of[number]
            self._try(pickler, cls, owner=owner, name=cls.__name__)
            owners = {**dict.fromkeys(pickler.needed, owner), **owners}
        todo = list(owners)
        while todo:
            name = todo.pop()
            self._try(pickler, self._script.names[name], owner=owners[name], name=name)
            for found in pickler.needed:
                if found not in owners:
                    owners[found] = owners[name]
                    todo.append(found)
        return set(owners)

    def _try(self, pickler: JobPickler, value: Any, *, owner: str, name: str) -> None:
        try:
            pickler.dump(value)
        except Exception as error:
            raise UnshippableError(owner, name, value) from error

    def _loading_rank(self, name: str) -> int:
        """Return 0 for what depends on nothing, 1 for classes, functions and types, 2 for objects."""
        value = self._script.names[name]
        if isinstance(value, _CONSTANTS):
            return 0
        if isinstance(value, type | types.FunctionType):
            return 1 if value.__module__ == self._script.name else 0
        return 1 if type(value).__module__ in ("typing", "types") else 2


_CONSTANTS = (type(None), bool, int, float, complex, str, bytes, types.ModuleType, typing.TypeVar)


# ---- loading ----------------------------------------------------------------

_lock = threading.RLock()
_installed: weakref.WeakValueDictionary[str, types.ModuleType] = weakref.WeakValueDictionary()
"""Job modules of this process by the id of their code; the script itself where it runs."""


def install(code: JobCode) -> Script:
    """Make the job module importable under its stable name, in place of an earlier one.

    Returns:
        What stands for the script in this process.

    Raises:
        Exception: something that the code imports is missing here, or user code that is run
            by the loading of an object raised.
    """
    with _lock:
        module = _installed.get(code.id)
        if module is None:
            module = _installed[code.id] = _load(code)
        sys.modules[code.module] = module
        return Script(code.module, module)


def _load(code: JobCode) -> types.ModuleType:
    install_modules(code.modules)
    module = types.ModuleType(code.module)
    if code.path:
        module.__file__ = code.path
        shipped = ShippedModule(code.source, package=False, path=code.path)
        module.__loader__ = SourceLoader({code.module: shipped})
    before = sys.modules.get(code.module)
    sys.modules[code.module] = module  # Code that is being loaded looks for it there.
    try:
        with deferral():
            unpickler = pickle.Unpickler(io.BytesIO(code.definitions))
            while definition := unpickler.load():
                name, value = definition
                vars(module)[name] = value
    except BaseException:
        if before is None:
            del sys.modules[code.module]
        else:
            sys.modules[code.module] = before
        raise
    return module
