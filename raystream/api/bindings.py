"""Names that the package root binds to code that the API may not import.

The API needs runners and a few connectors, which stand beside or above it in the layers.
`raystream/__init__.py` says where they are; they are imported at their first use, which
also keeps Ray out of `import raystream`.
"""

import importlib
from typing import Any

from raystream.errors import ConfigError

_targets: dict[str, str] = {}


def bind(name: str, target: str) -> None:
    """Let a name stand for `package.module:attribute`, which need not be importable yet."""
    _targets[name] = target


def bound(name: str) -> Any:
    """Import and return what a name stands for.

    Raises:
        ConfigError: nothing is bound to the name.
    """
    if name not in _targets:
        raise ConfigError("nothing has this name", hint=f"known: {', '.join(sorted(_targets))}", name=name)
    module, _, attribute = _targets[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
