"""Which raystream writes a snapshot."""

import functools
import importlib.metadata


@functools.cache  # Every checkpoint says it, and looking it up takes longer than writing a small one.
def installed_version() -> str:
    """Return the version of raystream that runs."""
    try:
        return importlib.metadata.version("raystream")
    except importlib.metadata.PackageNotFoundError:
        return "not-installed"
