"""The key whose state is meant: one small object that every state of an operator looks at.

The operator stores key and key group of a record here before it calls the user's
function, and `NO_KEY_GROUP` afterwards; a state object then finds its entry with
`tables[cursor.group][cursor.current_key]`, without a call in between.  A *table list*
therefore has one place more than there are key groups: index -1, which is
`NO_KEY_GROUP`, holds a guard that answers every access with an error.  So the check
for a missing key costs nothing while there is one.
"""

from typing import Any

NO_KEY_GROUP = -1
"""Value of `KeyCursor.group` while there is no current key."""


class KeyCursor:
    """Position in keyed state; operators subclass it as the context of their function.

    Attributes:
        current_key: canonical key of the record in hand (`raystream.keys`), None outside a record.
        group: its key group, `0 <= group < max parallelism`, or `NO_KEY_GROUP`.
    """

    __slots__ = ("current_key", "group")

    def __init__(self) -> None:
        self.current_key: Any = None
        self.group = NO_KEY_GROUP
