"""Kinds of option values: what may be written, what it becomes, how it is printed.

A kind turns text, YAML scalars and Python values into one Python type, checks that a
value lies in its range, and prints a value so that parsing the text gives it back.
Kinds know no key names: they raise `ValueError`, and `raystream.config.schema` adds
the key.
"""

import math
import os
import sys
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeVar

from raystream.config.units import format_duration, format_size, parse_duration_ms, parse_size_bytes

T = TypeVar("T")


class Kind(Protocol[T]):
    """What an option needs to know about its values."""

    @property
    def name(self) -> str:
        """What `raystream config` prints as the type."""

    def parse(self, raw: object) -> T:
        """Return the value of a text, a YAML scalar or a Python object.

        Raises:
            ValueError: it is not of this kind; the message says what was expected.
        """

    def check(self, value: object) -> None:
        """Accept a value that `parse` may have returned.

        Raises:
            ValueError: another type, or out of range.
        """

    def format(self, value: T) -> str:
        """Return the text of a value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Integer:
    """A whole number in [minimum, maximum]."""

    minimum: int = 0
    maximum: int = sys.maxsize
    name: ClassVar[str] = "int"

    def parse(self, raw: object) -> int:
        if isinstance(raw, str):
            try:
                return int(raw)
            except ValueError:
                raise ValueError("expected a whole number") from None
        if isinstance(raw, int) and not isinstance(raw, bool):
            return raw
        raise ValueError("expected a whole number")

    def check(self, value: object) -> None:
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError("expected a whole number")
        if value < self.minimum:
            raise ValueError(f"must be at least {self.format(self.minimum)}")
        if value > self.maximum:
            raise ValueError(f"must be at most {self.format(self.maximum)}")

    def format(self, value: int) -> str:
        return str(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Duration(Integer):
    """A duration, kept in milliseconds."""

    name: ClassVar[str] = "duration"

    def parse(self, raw: object) -> int:
        return parse_duration_ms(raw)

    def format(self, value: int) -> str:
        return format_duration(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size(Integer):
    """A size, kept in bytes."""

    name: ClassVar[str] = "size"

    def parse(self, raw: object) -> int:
        return parse_size_bytes(raw)

    def format(self, value: int) -> str:
        return format_size(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A finite number in [minimum, maximum]."""

    minimum: float = 0.0
    maximum: float = math.inf
    name: ClassVar[str] = "float"

    def parse(self, raw: object) -> float:
        if isinstance(raw, str | int | float) and not isinstance(raw, bool):
            try:
                return float(raw)
            except ValueError:
                pass
        raise ValueError("expected a number")

    def check(self, value: object) -> None:
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise ValueError("expected a number")
        if value < self.minimum:
            raise ValueError(f"must be at least {self.format(self.minimum)}")
        if value > self.maximum:
            raise ValueError(f"must be at most {self.format(self.maximum)}")

    def format(self, value: float) -> str:
        return repr(float(value)).removesuffix(".0")


@dataclass(frozen=True, slots=True)
class Boolean:
    """True or false."""

    name: ClassVar[str] = "bool"

    def parse(self, raw: object) -> bool:
        text = str(raw).lower()
        if text not in ("true", "false"):
            raise ValueError("expected true or false")
        return text == "true"

    def check(self, value: object) -> None:
        if not isinstance(value, bool):
            raise ValueError("expected true or false")

    def format(self, value: bool) -> str:
        return "true" if value else "false"


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words; `EXACTLY_ONCE`, as Flink's files have it, is read as `exactly-once`."""

    words: tuple[str, ...]
    later: tuple[str, ...] = ()
    """Words that Flink's users may expect here and that this version refuses."""

    @property
    def name(self) -> str:
        return " | ".join(self.words)

    def parse(self, raw: object) -> str:
        if not isinstance(raw, str):
            raise ValueError(self._expected())
        return raw.strip().lower().replace("_", "-")

    def check(self, value: object) -> None:
        if value in self.later:
            raise ValueError(f"not supported in this version; {self._expected()}")
        if value not in self.words:
            raise ValueError(self._expected())

    def format(self, value: str) -> str:
        return value

    def _expected(self) -> str:
        *others, last = self.words
        return f"expected {', '.join(others)} or {last}" if others else f"expected {last}"


@dataclass(frozen=True, slots=True)
class Location:
    """A path or a URL."""

    name: ClassVar[str] = "path"

    def parse(self, raw: object) -> str:
        if not isinstance(raw, str | os.PathLike):
            raise ValueError("expected a path or a URL")
        return os.fspath(raw)

    def check(self, value: object) -> None:
        if not isinstance(value, str) or not value.strip():
            raise ValueError("expected a path or a URL")

    def format(self, value: str) -> str:
        return value
