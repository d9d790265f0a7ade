"""Schemas of stored values as text, and whether one can be read as another.

A schema is what a person reads in `_metadata` and what a restore compares, so it has
a small grammar:

    type    := arm ("|" arm)*
    arm     := NAME                                     int, str, datetime, Tree (inside Tree)
             | NAME "[" type ("," type)* "]"            dict[str, int], tuple[int, ...]
             | NAME "{" [field ("," field)*] "}"        Visit{path: str, note?: str}
             | NAME "(" literal ("," literal)* ")"      Color("red", "blue")
    field   := (NAME | STRING) ["?"] ":" type           "?": the field has a default
    literal := STRING | INTEGER                         strings as in JSON

`{}` is a record (dataclass or msgspec.Struct) and `()` an enum with its members' values.
A stored value is readable when every arm that may have been written has an arm that
reads it; records may have lost fields and gained fields with a default, enums may have
gained members.  Text that is empty stands for pickled values, which read as whatever
they are.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from raystream.errors import StateCorruptError
from raystream.handles import StateInfo

_T = TypeVar("_T")

_TOKEN = re.compile(r'\s*("(?:\\.|[^"\\])*"|-?\d+|\.\.\.|\w+|[\[\]{}(),:|?])')
_DEPTH_MAX = 100
"""Limit on nesting, so that a damaged schema cannot exhaust the stack."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a record."""

    name: str
    type: "Union"
    optional: bool


@dataclass(frozen=True, slots=True)
class Arm:
    """One alternative of a type; at most one of the last three is set."""

    name: str
    arguments: "tuple[Union, ...]" = ()
    fields: tuple[Field, ...] | None = None
    literals: tuple[str | int, ...] = ()


Union = tuple[Arm, ...]


def difference(stored: StateInfo, registered: StateInfo, *, migrates: bool = False) -> str:
    """Return what keeps a registered state from taking over what is stored under its name.

    Args:
        stored: from the snapshot.
        registered: from the program.
        migrates: the program has a function that makes new values out of stored ones.

    Returns:
        Name of the field of `StateInfo` that does not fit; empty when everything does.

    Raises:
        StateCorruptError: the stored schema does not follow the grammar.
    """
    if stored.kind != registered.kind:
        return "kind"
    if stored.namespaced != registered.namespaced:
        return "namespaced"
    if not readable(stored.map_key_schema, registered.map_key_schema):
        return "map_key_schema"
    if migrates or values_readable(stored, registered):
        return ""
    return "serializer" if stored.serializer != registered.serializer else "schema"


def values_readable(stored: StateInfo, registered: StateInfo) -> bool:
    """Return whether stored values can be read as the registered ones without a migration."""
    return stored.serializer == registered.serializer and readable(stored.schema, registered.schema)


def readable(stored: str, registered: str) -> bool:
    """Return whether values of the stored schema can be read as the registered one.

    Example:
        >>> readable("Visit{path: str, old: int}", "Visit{path: str, note?: str}")
        True
        >>> readable("int", "str")
        False
    """
    if stored == registered:
        return True
    if not stored or not registered:
        return False
    return _union_readable(parse(stored), parse(registered))


def parse(text: str) -> Union:
    """Return the tree of a schema.

    Raises:
        StateCorruptError: the text does not follow the grammar.
    """
    parser = _Parser(text)
    tree = parser.union(0)
    parser.expect("")
    return tree


def _union_readable(stored: Union, registered: Union) -> bool:
    return all(any(_arm_readable(old, new) for new in registered) for old in stored)


def _arm_readable(stored: Arm, registered: Arm) -> bool:
    if stored.name != registered.name or len(stored.arguments) != len(registered.arguments):
        return False
    if stored.fields is not None and registered.fields is not None:
        old = {field.name: field for field in stored.fields}
        return all(
            _union_readable(old[field.name].type, field.type) if field.name in old else field.optional
            for field in registered.fields
        )
    return (
        (stored.fields is None) is (registered.fields is None)
        and set(stored.literals) <= set(registered.literals)
        and all(map(_union_readable, stored.arguments, registered.arguments))
    )


class _Parser:
    """Recursive descent over the tokens of one schema."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._token = ""  # The one that comes next; empty at the end.
        self._position = self._end = 0  # Where it begins and where the one after it does.
        self._advance()

    def union(self, depth: int) -> Union:
        if depth > _DEPTH_MAX:
            raise self._error()
        arms = [self._arm(depth)]
        while self._take("|"):
            arms.append(self._arm(depth))
        return tuple(arms)

    def expect(self, token: str) -> None:
        if self._advance() != token:
            raise self._error()

    def _arm(self, depth: int) -> Arm:
        name = self._advance()
        if not re.fullmatch(r"\w+|\.\.\.", name):
            raise self._error()
        if self._take("["):
            return Arm(name, arguments=tuple(self._listed("]", lambda: self.union(depth + 1))))
        if self._take("{"):
            return Arm(name, fields=tuple(self._listed("}", lambda: self._field(depth + 1))))
        if self._take("("):
            return Arm(name, literals=tuple(self._listed(")", self._literal)))
        return Arm(name)

    def _field(self, depth: int) -> Field:
        token = self._advance()
        name = str(self._loads(token)) if token.startswith('"') else token
        optional = self._take("?")
        self.expect(":")
        return Field(name, self.union(depth), optional)

    def _literal(self) -> str | int:
        value = self._loads(self._advance())
        if not isinstance(value, str | int):
            raise self._error()
        return value

    def _loads(self, token: str) -> object:
        try:
            return json.loads(token)
        except ValueError as error:
            raise self._error() from error

    def _listed(self, end: str, item: Callable[[], _T]) -> Iterator[_T]:
        if self._take(end):
            return
        yield item()
        while self._take(","):
            yield item()
        self.expect(end)

    def _take(self, token: str) -> bool:
        taken = self._token == token
        if taken:
            self._advance()
        return taken

    def _advance(self) -> str:
        token, self._position = self._token, self._end
        match = _TOKEN.match(self._text, self._position)
        if match is not None:
            self._token, self._end = match[1], match.end()
        elif self._position == len(self._text):
            self._token = ""
        else:
            raise self._error()
        return token

    def _error(self) -> StateCorruptError:
        return StateCorruptError(
            "stored schema does not follow the grammar of schemas",
            schema=self._text[:200],
            position=self._position,
        )
