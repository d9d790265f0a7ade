"""Versions that a client and the cluster it submits to must share."""

import sys
from importlib.metadata import PackageNotFoundError, version

from raystream.errors import ConfigError


def own_versions() -> dict[str, str]:
    """Return the versions of this process, by name."""
    try:
        raystream = version("raystream")
    except PackageNotFoundError:
        raystream = "not installed"
    return {"raystream": raystream, "python": ".".join(map(str, sys.version_info[:2]))}


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
