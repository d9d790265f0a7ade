"""Versions that a client and the cluster it submits to must share."""

import sys
from importlib.metadata import PackageNotFoundError, version

from raystream.errors import ConfigError


def own_versions() -> dict[str, str]:
    """Return the versions of this process, by name."""
    python = ".".join(map(str, sys.version_info[:2]))
    return {"raystream": _installed("raystream"), "python": python, "ray": _installed("ray")}


def versions_text(versions: dict[str, str]) -> str:
    """Return versions as one word of a command line.

    Example:
        >>> versions_text({"raystream": "0.1.0", "python": "3.11"})
        'raystream=0.1.0,python=3.11'
    """
    return ",".join(f"{name}={number}" for name, number in versions.items())


def parsed_versions(text: str) -> dict[str, str]:
    """Return what `versions_text` was made from; of a text of another form, what can be read of it."""
    pairs = (pair.partition("=") for pair in text.split(","))
    return {name: number for name, equals, number in pairs if equals}


def check_client(client: dict[str, str]) -> None:
    """Compare a client's versions with those of this process.

    Raises:
        ConfigError: they differ; job code and messages would not fit.
    """
    own = own_versions()
    for name, theirs in client.items():
        if name in own and theirs != own[name]:
            raise ConfigError(
                f"cluster has another version of {name}",
                hint="install the same version on the client and on every node of the cluster",
                client=theirs,
                cluster=own[name],
            )


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not-installed"
