"""What a submitted job takes along: its working directory, further modules, the rest of its Ray environment.

Ray packs directories and keeps the packages in the memory of the cluster's head, so they are for
code.  What `.gitignore` and `.rayignore` name stays at home, as Ray has it, what `--exclude` does, and files
that by their names hold somebody's credentials.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from raystream.cli.progress import short_size
from raystream.cluster.packages import packed_files
from raystream.errors import ConfigError

PACKAGE_BYTES_MAX = 100 << 20
"""Most that one directory may have of files that go along."""
ENTRIES_SHOWN_MAX = 5

CREDENTIALS = ("*.env", "*.pem", "*.key", ".netrc", ".ssh", ".aws", ".kube", ".docker", ".ray")
"""What stays at home unless a later pattern takes it in again, such as `!prod.env`."""


@dataclass(frozen=True, kw_only=True)
class Luggage:
    """What goes along, and where the script is in it."""

    script: str
    """Path of the script in the working directory."""
    runtime_env: dict[str, Any]
    hiding: tuple[str, ...] = ()
    """Files of the working directory that have the name of a module of Python."""


def pack(
    script: Path,
    *,
    working_dir: str | None,
    py_modules: Sequence[str],
    excludes: Sequence[str],
    runtime_env_file: str | None,
) -> Luggage:
    """Return what a job takes along to the cluster.

    Args:
        script: path of JOB.py; in a working directory that is given by a URI, its path there.
        working_dir: a directory, or a URI of a package; by default what the file of the runtime
            environment says, else the directory of the script, unless the user's home is in there.
        py_modules: directories, wheels or Python files that shall be importable.
        excludes: patterns in the syntax of `.gitignore` for what does not go along.
        runtime_env_file: YAML file with a Ray runtime environment.

    Raises:
        ConfigError: something is not there, is too large, or the script lies elsewhere.
    """
    env = {} if runtime_env_file is None else _runtime_env(Path(runtime_env_file))
    patterns = env["excludes"] = [*CREDENTIALS, *env.get("excludes", []), *excludes]
    if py_modules:
        env["py_modules"] = [*env.get("py_modules", []), *map(_module, py_modules)]
    directory = working_dir or env.get("working_dir")
    if directory is not None and "://" in directory:
        return Luggage(script=script.as_posix(), runtime_env={**env, "working_dir": directory})
    relative, root = _place(script, Path(directory) if directory else _own_directory(script))
    for path in (root, *(Path(one) for one in env.get("py_modules", []) if "://" not in one)):
        if path.is_dir():
            _check_size(path, patterns)
    return Luggage(
        script=relative.as_posix(),
        runtime_env={**env, "working_dir": str(root)},
        hiding=tuple(sorted(path.name for path in root.glob("*.py") if path.stem in sys.stdlib_module_names)),
    )


def _own_directory(script: Path) -> Path:
    """Return the directory of a script, for which nobody has asked to go along.

    Raises:
        ConfigError: the user's home is there, or below it, with much that is for nobody else.
    """
    if Path.home().resolve().is_relative_to(script.parent.resolve()):
        raise ConfigError(
            "job script lies in the home directory, which does not go along by itself",
            hint="put the script and what it imports into a directory of their own, or give --working-dir",
            script=str(script),
        )
    return script.parent


def _place(script: Path, directory: Path) -> tuple[Path, Path]:
    """Return the script's path in the directory, and the directory."""
    if not script.is_file():
        raise ConfigError(
            "job script cannot be read",
            hint="give the path of a Python file",
            path=str(script),
            cause="there is no such file",
        )
    if not directory.is_dir():
        raise ConfigError(
            "working directory does not exist",
            hint="give a directory with --working-dir",
            path=str(directory),
        )
    root = directory.resolve()
    if not script.resolve().is_relative_to(root):
        raise ConfigError(
            "job script is not in the working directory",
            hint="give the directory of the script, or one above it, with --working-dir",
            script=str(script),
            working_dir=str(directory),
        )
    return script.resolve().relative_to(root), root


def _module(path: str) -> str:
    """Return a module's path as Ray takes it.

    Raises:
        ConfigError: there is nothing.
    """
    if "://" in path:
        return path
    if not Path(path).exists():
        raise ConfigError(
            "module to take along does not exist",
            hint="give the directory of a package, a wheel or a Python file with --py-module",
            path=path,
        )
    return str(Path(path).resolve())


def _runtime_env(path: Path) -> dict[str, Any]:
    try:
        env = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(
            "runtime environment cannot be read",
            hint="give a YAML file with the fields of a Ray runtime environment, such as `pip: [polars]`",
            path=str(path),
            cause=" ".join(str(error).split()),
        ) from error
    if not isinstance(env, dict):
        raise ConfigError(
            "runtime environment has no fields",
            hint="give a YAML file with the fields of a Ray runtime environment, such as `pip: [polars]`",
            path=str(path),
        )
    return env


def _check_size(directory: Path, excludes: Sequence[str]) -> None:
    """Refuse a directory that is too large to go along, with what makes it so.

    Raises:
        ConfigError: it is.
    """
    sizes: dict[str, int] = {}
    for path, size_bytes in packed_files(directory, excludes):
        top = path.relative_to(directory).parts[0]
        entry = top if path.parent == directory else f"{top}/"
        sizes[entry] = sizes.get(entry, 0) + size_bytes
    total = sum(sizes.values())
    if total <= PACKAGE_BYTES_MAX:
        return
    largest = "\n".join(_largest(sizes))
    raise ConfigError(
        f"working directory is too large to go along\n{largest}",
        hint="leave out what the job does not import with --exclude PATTERN, or in a .rayignore file there;"
        " data belongs where every node reads it",
        path=str(directory),
        size=short_size(total),
        size_max=short_size(PACKAGE_BYTES_MAX),
    )


def _largest(sizes: dict[str, int]) -> Iterator[str]:
    by_size = sorted(sizes.items(), key=lambda entry: (-entry[1], entry[0]))
    for name, size_bytes in by_size[:ENTRIES_SHOWN_MAX]:
        yield f"    {short_size(size_bytes):>10}  {name}"
    if len(by_size) > ENTRIES_SHOWN_MAX:
        rest = sum(size_bytes for _, size_bytes in by_size[ENTRIES_SHOWN_MAX:])
        yield f"    {short_size(rest):>10}  in {len(by_size) - ENTRIES_SHOWN_MAX} more"
