r"""Keys as a person types them, and as JSON shows them.

A literal is what Python and the column `key_text` of a savepoint show of a key, or what JSON has for it:
`42`, `('a', 1)`, `["a", 1]`, `b'\x00'`, `UUID('...')`, `datetime.date(2026, 1, 31)`.  Nothing of it is run.
"""

import ast
import datetime as dt
import decimal
import uuid
from typing import Any

from raystream.errors import ConfigError, KeyTypeError
from raystream.keys import Key, canonical_key
from raystream.state.canonical_keys import key_text

INT_BITS_MAX = 14_000
"""Python writes no int that is much longer."""

_NAMES: dict[str, Any] = {"null": None, "true": True, "false": False, "datetime.timezone.utc": dt.UTC}
_NAMES["inf"] = float("inf")
_CALLS: dict[str, Any] = {
    "UUID": uuid.UUID,
    "Decimal": decimal.Decimal,
    "datetime.datetime": dt.datetime,
    "datetime.date": dt.date,
}


def key_of_literal(text: str) -> Key:
    """Return the canonical key that a literal stands for.

    Raises:
        ConfigError: the text is no literal of a key.

    Example:
        >>> key_of_literal('["a", 1]')
        ('a', 1)
    """
    try:
        return canonical_key(_value(ast.parse(text.strip(), mode="eval").body))
    except (
        SyntaxError,
        ValueError,
        TypeError,
        ArithmeticError,
        RecursionError,
        MemoryError,
        KeyTypeError,
    ) as error:
        raise ConfigError(
            "key is not a literal",
            hint="write it as it is shown: 42, ('a', 1), b'\\x00', UUID('...'); text needs quotes, or leave"
            " --literal out",
            key=text[:200],
            cause=(str(error) or type(error).__name__).splitlines()[0][:200],
        ) from error


def key_as_json(key: Key | None) -> Any:
    """Return a key as JSON has it: tuples as arrays; what JSON has no word for as its text.

    Example:
        >>> key_as_json(("a", 1, b"x"))
        ['a', 1, "b'x'"]
    """
    if isinstance(key, tuple):
        return list(map(key_as_json, key))
    if isinstance(key, int) and key.bit_length() > INT_BITS_MAX:
        return key_text(key)
    plain = key is None or isinstance(key, str | int)
    return key if plain else repr(key)


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Tuple(elts=items) | ast.List(elts=items):
            return tuple(map(_value, items))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.Call(func=function, args=arguments, keywords=keywords):
            named = {str(keyword.arg): _value(keyword.value) for keyword in keywords}
            return _CALLS[_known(function, _CALLS)](*map(_value, arguments), **named)
        case _:
            return _NAMES[_known(node, _NAMES)]


def _known(node: ast.expr, names: dict[str, Any]) -> str:
    name = ast.unparse(node)
    if name not in names:
        raise ValueError(f"{name} is not known")
    return name
