"""Which values can be shared with user code without being copied."""

import datetime as dt
import decimal
import uuid
from typing import Any

IMMUTABLE_TYPES: frozenset[type] = frozenset(
    {
        type(None),
        bool,
        int,
        float,
        complex,
        str,
        bytes,
        dt.date,
        dt.datetime,
        dt.time,
        dt.timedelta,
        decimal.Decimal,
        uuid.UUID,
    }
)
"""Types whose instances nobody can change; subclasses are not meant."""


def immutable(value: Any) -> bool:
    """Return True when nobody can change the value in place; False when in doubt."""
    if type(value) is tuple:
        return all(map(immutable, value))
    return type(value) in IMMUTABLE_TYPES
