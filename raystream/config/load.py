"""From what users write to a `JobConfig`.

Three layers, the later ones win: a file (or dict, or `JobConfig`), `-D KEY=VALUE` of the
command line, keyword arguments.  Text becomes typed values here and nowhere else; every
key is either honoured or refused with an error that says what to write instead.
"""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import yaml

from raystream.config.options import JobConfig
from raystream.config.schema import Option, build, values
from raystream.errors import ConfigError

_DEFAULTS = JobConfig()
_OPTIONS: dict[str, Option] = {
    name: declared for declared, _ in values(_DEFAULTS) for name in (declared.key, *declared.aliases)
}
_PREFIXES = {name[:end] for name in _OPTIONS for end, letter in enumerate(name) if letter == "."}

_FILE_ADVICE = "give a YAML file with one `key: value` per line; `raystream config` lists every key"

Layer = dict[str, object]
"""Typed values by canonical key."""


def load_config(
    source: str | Path | Mapping[str, object] | JobConfig | None = None,
    *,
    overrides: Mapping[str, str] | None = None,
    keywords: Mapping[str, object] | None = None,
) -> JobConfig:
    """Return the configuration that all layers together describe.

    Args:
        source: path of a YAML file, a mapping with flat or nested keys, or a configuration.
        overrides: `-D` options of the command line, text by key; win over `source`.
        keywords: keyword arguments, keys with `.` and `-` as `_`; win over everything.

    Raises:
        ConfigError: a file that cannot be read, a key that does not exist, a value that a key
            cannot have, or values that do not go together.

    Example:
        >>> load_config({"parallelism": {"default": 2}}, keywords={"slot_cpus": 0.5}).effective()["slot.cpus"]
        '0.5'
    """
    by_key: Layer = {
        **_source_layer(source),
        **_read(overrides or {}, where="command line"),
        **_read(dict(_named_keywords(keywords or {})), where="keyword arguments"),
    }
    return replace(build(JobConfig, by_key), explicit_keys=frozenset(by_key))


def _source_layer(source: str | Path | Mapping[str, object] | JobConfig | None) -> Layer:
    match source:
        case None:
            return {}
        case JobConfig():
            defaults = _DEFAULTS.effective()
            return {
                declared.key: value
                for declared, value in values(source)
                if declared.key in source.explicit_keys or declared.format(value) != defaults[declared.key]
            }
        case Mapping():
            return _read(source, where="configuration mapping")
        case _:
            return _read(_yaml_file(Path(source)), where=str(source))


def _yaml_file(path: Path) -> Mapping[str, object]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(
            "configuration file does not exist", hint="give the path of a YAML file", path=str(path)
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            "configuration file could not be read", hint=_FILE_ADVICE, path=str(path), cause=str(error)
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(
            "configuration file is not YAML", hint=_FILE_ADVICE, path=str(path), **_place(error)
        ) from error
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise ConfigError("configuration file holds no keys", hint=_FILE_ADVICE, path=str(path))
    return content


def _place(error: yaml.YAMLError) -> dict[str, object]:
    """Return what the parser stumbled over, and in which line, 1-based."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem and error.problem_mark:
        return {"line": error.problem_mark.line + 1, "cause": error.problem}
    return {"cause": " ".join(str(error).split())}


def _read(written: Mapping[str, object], *, where: str) -> Layer:
    layer: Layer = {}
    names: dict[str, str] = {}
    for name, raw in _flatten(written, where=where):
        declared = _OPTIONS[name]
        if declared.key in names:
            raise ConfigError(
                f"{declared.key}: set twice",
                hint="an older name and the new one mean the same key; keep one of them",
                names=sorted({name, names[declared.key]}),
                where=where,
            )
        names[declared.key] = name
        layer[declared.key] = declared.parse(raw, where=where)
    return layer


def _flatten(tree: Mapping[str, object], *, where: str, prefix: str = "") -> Iterator[tuple[str, object]]:
    for part, value in tree.items():
        name = f"{prefix}{part}"
        if isinstance(value, Mapping) and name in _PREFIXES:
            yield from _flatten(value, where=where, prefix=f"{name}.")
        elif name in _OPTIONS:
            yield name, value
        else:
            raise _no_such_key(name, value, _OPTIONS, where=where)


def _named_keywords(keywords: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    keys = {name.replace(".", "_").replace("-", "_"): name for name in _OPTIONS}
    for keyword, value in keywords.items():
        if keyword not in keys:
            known = {spelt: _OPTIONS[name] for spelt, name in keys.items()}
            raise _no_such_key(keyword, value, known, where="keyword arguments")
        yield keys[keyword], value


def _no_such_key(name: str, value: object, known: Mapping[str, Option], *, where: str) -> ConfigError:
    nearest = _key_below(name, value, known)
    if nearest is None:
        (nearest,) = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return ConfigError(
        "no configuration key has this name",
        hint=f"did you mean {nearest}? `raystream config` lists every key",
        key=name,
        where=where,
    )


def _key_below(name: str, value: object, known: Mapping[str, Option]) -> str | None:
    """Return the first key of a group of keys that takes this value; None when the name is no group."""
    below = (key for key in known if key.startswith((f"{name}.", f"{name}_")))
    return next((key for key in below if _takes(known[key], value)), None)


def _takes(declared: Option, value: object) -> bool:
    try:
        declared.parse(value, where="")
    except ConfigError:
        return False
    return True
