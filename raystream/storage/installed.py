"""Which raystream writes a snapshot."""

import importlib.metadata


def installed_version() -> str:
    """Return the version of raystream that runs."""
    try:
        return importlib.metadata.version("raystream")
    except importlib.metadata.PackageNotFoundError:
        return "not-installed"
