"""Modules of the user that are shipped with a job, as source text.

A script imports what lies beside it or on the developer's `PYTHONPATH`; a worker on
another machine has neither.  `collect_modules` finds these modules, `install_modules`
makes them importable where the job runs, before anything else of the job is loaded.

Shipped are the modules of the *user*, which are those outside of the standard library,
of installed packages and of raystream itself:

    whatever is imported and lies in the directory tree of the script
    whatever the job refers to, the package around it, and what these import in turn
    `*.py` files beside the script that it could import later

Data files of packages and compiled modules are not shipped.
"""

import functools
import importlib.abc
import importlib.machinery
import importlib.util
import logging
import sys
import sysconfig
import tokenize
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from raystream.errors import ConfigError

logger = logging.getLogger(__name__)

MODULES_MAX = 1_000
"""Most modules that are shipped with a job."""
SOURCE_BYTES_MAX = 16 << 20
"""Most source text that is shipped with a job."""
FILES_BESIDE_MAX = 200
"""With more `*.py` files beside the script, only those that it has imported are shipped."""


@dataclass(frozen=True, slots=True)
class ShippedModule:
    """The source of one module."""

    source: str
    package: bool
    path: str
    """Where it was read, for tracebacks."""


# ---- collecting -------------------------------------------------------------


def collect_modules(script: Path | None, referenced: Iterable[str]) -> dict[str, ShippedModule]:
    """Return the user's modules that a job needs, by name, parents before their submodules.

    Args:
        script: absolute path of the script, None where there is none.
        referenced: names of modules that the pickled job refers to.

    Raises:
        ConfigError: there are too many, or a file cannot be read.
    """
    loaded = {name: path for name, module in sorted(sys.modules.items()) if (path := _user_file(module))}
    wanted = {_top(name) for name in referenced}
    if script is not None:
        wanted |= {_top(name) for name, path in loaded.items() if path.is_relative_to(script.parent)}
    tops = _with_imports(wanted & {_top(name) for name in loaded}, loaded)
    files = {name: path for name, path in loaded.items() if _top(name) in tops}
    if script is not None:
        files.update(_files_beside(script))
    shipped = {name: _read(path) for name, path in files.items() if name != "__main__"}
    for name in list(shipped):
        for parent in _parents(name):
            shipped.setdefault(parent, ShippedModule("", package=True, path=f"<namespace {parent}>"))
    _check_bounds(shipped)
    return dict(sorted(shipped.items()))


def is_installed(path: Path) -> bool:
    """Tell whether a file belongs to Python, to an installed package or to an installed command."""
    return (
        "site-packages" in path.parts
        or "dist-packages" in path.parts
        or any(path.is_relative_to(root) for root in _installed_roots())
    )


@functools.cache
def _installed_roots() -> tuple[Path, ...]:
    kinds = ("stdlib", "platstdlib", "purelib", "platlib", "scripts")
    return tuple({Path(sysconfig.get_path(kind)).resolve() for kind in kinds})


def _user_file(module: types.ModuleType | None) -> Path | None:
    """Return the source file of a module of the user."""
    file = getattr(module, "__file__", None)
    name = getattr(module, "__name__", "")
    if not isinstance(file, str) or not file.endswith(".py") or _top(name) in ("raystream", "__main__"):
        return None
    path = Path(file).resolve()
    return None if is_installed(path) else path


def _with_imports(tops: set[str], loaded: Mapping[str, Path]) -> set[str]:
    """Return the packages and whatever their modules have imported, directly or not."""
    known = {_top(name) for name in loaded}
    found: set[str] = set()
    while new := tops - found:
        found |= new
        modules = [sys.modules[name] for name in loaded if _top(name) in new]
        tops = {top for module in modules for top in _imported_by(module) if top in known}
    return found


def _imported_by(module: types.ModuleType) -> Iterator[str]:
    for value in list(vars(module).values()):
        if isinstance(value, types.ModuleType):
            yield _top(value.__name__)
        elif isinstance(value, type | types.FunctionType) and isinstance(value.__module__, str):
            yield _top(value.__module__)


def _files_beside(script: Path) -> Iterator[tuple[str, Path]]:
    """Yield the modules beside the script that an import in the running job could ask for."""
    beside = sorted(script.parent.glob("*.py"))
    paths = [path for path in beside if path != script and path.stem.isidentifier()]
    if len(paths) > FILES_BESIDE_MAX:
        logger.info("files beside the script are not shipped", extra={"files": len(paths)})
        return
    for path in paths:
        if path.stem not in sys.modules and _found_by_import(path):
            yield path.stem, path


def _found_by_import(path: Path) -> bool:
    try:
        spec = importlib.util.find_spec(path.stem)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None and Path(spec.origin).resolve() == path


def _read(path: Path) -> ShippedModule:
    return ShippedModule(read_source(path), package=path.name == "__init__.py", path=str(path))


def read_source(path: Path) -> str:
    """Return the text of a Python file, in the encoding that it declares.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        with tokenize.open(path) as file:
            return file.read()
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        raise ConfigError(
            "source file that the job needs could not be read", path=str(path), cause=str(error)
        ) from error


def _check_bounds(shipped: Mapping[str, ShippedModule]) -> None:
    size = sum(len(module.source) for module in shipped.values())
    if len(shipped) > MODULES_MAX or size > SOURCE_BYTES_MAX:
        raise ConfigError(
            "job has too many modules of its own to ship",
            hint="put the script into a directory of its own, or install its modules on all nodes",
            modules=len(shipped),
            modules_max=MODULES_MAX,
            characters=size,
            characters_max=SOURCE_BYTES_MAX,
        )


def _top(name: str) -> str:
    return name.partition(".")[0]


def _parents(name: str) -> Iterator[str]:
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


# ---- installing -------------------------------------------------------------


class SourceLoader(importlib.abc.InspectLoader):
    """Loads modules from text; also gives tracebacks the lines of files that are not here."""

    def __init__(self, modules: Mapping[str, ShippedModule]) -> None:
        self.modules = dict(modules)

    def get_source(self, fullname: str) -> str:
        return self.modules[fullname].source

    def is_package(self, fullname: str) -> bool:
        return self.modules[fullname].package

    def get_code(self, fullname: str) -> types.CodeType:
        module = self.modules[fullname]
        return self.source_to_code(module.source, module.path)


class _ShippedFinder(importlib.abc.MetaPathFinder):
    """Finds shipped modules before anything of the same name that happens to be installed."""

    def __init__(self) -> None:
        self.loader = SourceLoader({})

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: types.ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        module = self.loader.modules.get(fullname)
        if module is None:
            return None
        spec = importlib.util.spec_from_loader(
            fullname, self.loader, origin=module.path, is_package=module.package
        )
        if spec is not None:
            spec.has_location = True  # So that the module gets its `__file__`.
        return spec


_finder = _ShippedFinder()


def install_modules(modules: Mapping[str, ShippedModule]) -> None:
    """Make shipped modules importable; a module of the same name with another text is forgotten.

    One with the same text stays, wherever it came from: a second one beside it would have
    classes that are not those of the first.
    """
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    for name, module in modules.items():
        loaded = sys.modules.get(name)
        if loaded is not None and not _has_source(loaded, module):
            del sys.modules[name]
    _finder.loader.modules.update(modules)


def _has_source(loaded: types.ModuleType, module: ShippedModule) -> bool:
    before = _finder.loader.modules.get(loaded.__name__)
    if before is not None:
        return before == module
    path = _user_file(loaded)
    if path is None:
        return not module.source  # Such as a namespace package.
    try:
        return read_source(path) == module.source
    except ConfigError:
        return False
