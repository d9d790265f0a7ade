"""What a pickle says of itself without being loaded: the name of the class of its value."""

import pickletools
import re

OPCODES_MAX = 64
"""Of a pickle, as far as it is looked at: the class of the value stands near its beginning."""

BUILTINS = {
    "EMPTY_DICT": "dict",
    "EMPTY_LIST": "list",
    "EMPTY_SET": "set",
    "EMPTY_TUPLE": "tuple",
    "NONE": "None",
    "NEWTRUE": "bool",
    "NEWFALSE": "bool",
}


def class_in_pickle(data: bytes) -> str:
    """Return `module.Class` of the value in a pickle; empty where that cannot be told at a glance.

    Nothing of the pickle is run: only its first opcodes are read.

    Example:
        >>> import pickle
        >>> class_in_pickle(pickle.dumps(Exception("x"), 5))
        'builtins.Exception'
    """
    texts: list[str] = []
    try:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            name = opcode.name
            if name == "STACK_GLOBAL":
                return _name(".".join(texts[-2:]))
            if name == "GLOBAL":
                return _name(str(argument).replace(" ", ".", 1))
            if name in BUILTINS and not texts:
                return BUILTINS[name]
            if "UNICODE" in name:
                texts.append(str(argument))
            elif name not in _AROUND or number == OPCODES_MAX:
                return ""
    except Exception:  # Not a pickle, or one that is cut off: its name is not known, that is all.
        return ""
    return ""


def _name(text: str) -> str:
    return text if _DOTTED.fullmatch(text) else ""


_DOTTED = re.compile(r"\w+(\.[\w<>]+)+")
"""Only a name is shown, whatever the pickle says."""

_AROUND = frozenset({"PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "MARK"})
"""Opcodes that may stand before the name of a class."""
