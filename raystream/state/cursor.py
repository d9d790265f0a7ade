"""The key whose state is meant: one small object that every state of an operator looks at.

The operator stores key and key group of a record here before it calls the user's
function, and `NO_KEY_GROUP` afterwards; a state object then finds its entry with
`tables[cursor.group][cursor.current_key]`, without a call in between.  A *table list*
therefore has one place more than there are key groups: index -1, which is
`NO_KEY_GROUP`, holds a guard that answers every access with an error.  So the check
for a missing key costs nothing while there is one.
"""

from typing import Any

from raystream.clock import TimeDomain

NO_KEY_GROUP = -1
"""Value of `KeyCursor.group` while there is no current key."""


class KeyCursor:
    """Position in keyed state; operators subclass it as the context of their function.

    Attributes:
        current_key: canonical key of the record in hand (`raystream.keys`), None outside a record.
        group: its key group, `0 <= group < max parallelism`, or `NO_KEY_GROUP`.
        namespace: canonical key, such as `(start, end)` of a window, or None; only states that are
            declared `namespaced` look at it.
        timestamp: ms since the epoch, or None when the record has none; the time of a timer that fires.
        time_domain: which time that timer goes by; None while there is a record.
    """

    __slots__ = ("current_key", "group", "namespace", "time_domain", "timestamp")

    def __init__(self) -> None:
        self.current_key: Any = None
        self.group = NO_KEY_GROUP
        self.namespace: Any = None
        self.timestamp: int | None = None
        self.time_domain: TimeDomain | None = None


class NamespaceCursor:
    """A cursor as a namespaced state sees it: its key is the pair of key and namespace.

    Tables then hold `(key, namespace)` where they hold `key` otherwise, and nothing else in a backend
    has to know of namespaces.  The key group is that of the key alone.
    """

    __slots__ = ("_cursor",)

    def __init__(self, cursor: KeyCursor) -> None:
        self._cursor = cursor

    @property
    def current_key(self) -> tuple[Any, Any]:
        """Key and namespace."""
        return self._cursor.current_key, self._cursor.namespace

    @property
    def group(self) -> int:
        """Key group of the key."""
        return self._cursor.group


Cursor = KeyCursor | NamespaceCursor


def cursor_of(cursor: KeyCursor, *, namespaced: bool) -> Cursor:
    """Return the cursor that a state follows."""
    return NamespaceCursor(cursor) if namespaced else cursor
