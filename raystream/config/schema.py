"""How a dataclass field becomes a configuration key.

A section of the configuration is a frozen dataclass that derives from `Section`; each
field made with `option` belongs to one key.  Everything else follows from the fields:
which keys exist, how their text is parsed, checked and printed.  Knows no key itself.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from raystream.config.kinds import Choice, Kind
from raystream.errors import ConfigError

NONE = "none"
"""Text of a value that is not set."""

_METADATA = "raystream.option"


@dataclass(frozen=True, kw_only=True)
class Option:
    """One configuration key."""

    key: str
    kind: Kind[Any]
    default: object
    """None: not set, or derived from other keys."""
    default_text: str
    """The default as people read it."""
    aliases: tuple[str, ...] = ()
    """Older names of the key."""

    def parse(self, raw: object, *, where: str) -> object:
        """Return the value of what a user wrote.

        Args:
            raw: text, a YAML scalar or a Python value; None and `none` unset a key that needs no value.
            where: origin of the value, for the error.

        Raises:
            ConfigError: not a value of this key.
        """
        try:
            value = None if raw is None or self._unsets(raw) else self.kind.parse(raw)
            self.verify(value)
        except ValueError as error:
            raise ConfigError(f"{self.key}: {error}", value=raw, where=where) from error
        return value

    def check(self, value: object) -> None:
        """Accept a value that the key may have.

        Raises:
            ConfigError: another type, out of range, or None for a key that always has a value.
        """
        try:
            self.verify(value)
        except ValueError as error:
            raise ConfigError(f"{self.key}: {error}", value=value) from error

    def verify(self, value: object) -> None:
        """Accept a value that the key may have; the error of the other ones knows no key yet.

        Raises:
            ValueError: another type, out of range, or None for a key that always has a value.
        """
        if value is not None:
            self.kind.check(value)
        elif self.default is not None:
            raise ValueError("needs a value")

    def format(self, value: object) -> str:
        """Return the text of a value; parsing it gives the value back."""
        return NONE if value is None else self.kind.format(value)

    def _unsets(self, raw: object) -> bool:
        if self.default is not None or (isinstance(self.kind, Choice) and raw in self.kind.words):
            return False
        return raw in (NONE, self.default_text)


# The return type is what `dataclasses.field` has as well: the value of a field's type.
def option(
    key: str, kind: Kind[Any], *, default: object, default_text: str = "", aliases: tuple[str, ...] = ()
) -> Any:
    """Declare a dataclass field that belongs to a configuration key.

    Args:
        key: Flink's name of the key.
        kind: what values look like.
        default: value of the field; None for not set, or when `__post_init__` derives it.
        default_text: the default as people read it, when it is derived.
        aliases: older names of the key.
    """
    text = default_text or (NONE if default is None else kind.format(default))
    metadata = {
        _METADATA: Option(key=key, kind=kind, default=default, default_text=text, aliases=aliases),
    }
    return dataclasses.field(default=default, metadata=metadata)


class Section:
    """Base of the dataclasses that hold options: checks every field against its kind."""

    def __post_init__(self) -> None:
        for field_name, declared in own_options(type(self)):
            declared.check(getattr(self, field_name))

    def conflict(self, message: str, field_names: tuple[str, ...], *, hint: str) -> ConfigError:
        """Return the error for values that are right one by one and do not go together."""
        shown = {
            declared.key: declared.format(getattr(self, field_name))
            for field_name, declared in own_options(type(self))
            if field_name in field_names
        }
        return ConfigError(message, hint=hint, **shown)


S = TypeVar("S", bound=Section)


def own_options(section: type[Section]) -> Iterator[tuple[str, Option]]:
    """Yield field name and option of each key that the section itself holds."""
    for field in _fields(section):
        if _METADATA in field.metadata:
            yield field.name, field.metadata[_METADATA]


def subsections(section: type[Section]) -> Iterator[tuple[str, type[Section]]]:
    """Yield field name and type of each section inside the section."""
    for field in _fields(section):
        if isinstance(field.type, type) and issubclass(field.type, Section):
            yield field.name, field.type


def values(section: Section) -> Iterator[tuple[Option, object]]:
    """Yield every option of a section and of those inside it, with its value."""
    for field_name, declared in own_options(type(section)):
        yield declared, getattr(section, field_name)
    for field_name, _ in subsections(type(section)):
        yield from values(getattr(section, field_name))


def build(section: type[S], by_key: Mapping[str, object]) -> S:
    """Return a section, and those inside it, with the values of some keys and the defaults of the rest."""
    arguments: dict[str, object] = {
        field_name: by_key[declared.key]
        for field_name, declared in own_options(section)
        if declared.key in by_key
    }
    for field_name, inner in subsections(section):
        arguments[field_name] = build(inner, by_key)
    return section(**arguments)


def _fields(section: type[Section]) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(section)  # type: ignore[arg-type]
