"""URLs of HDFS, apart from what opens them: they are made wherever a path is named."""

import posixpath
from urllib.parse import urlsplit

from raystream.errors import ConfigError


def hdfs_url(rest: str) -> str:
    """Return the URL for hdfs-native; without a host it is of the configured file system."""
    return _normalized("hdfs", rest)


def webhdfs_url(rest: str) -> str:
    """Return the URL for the REST interface.

    Raises:
        ConfigError: it has no host.
    """
    if not rest.partition("/")[0]:
        raise ConfigError("URL has no host", path=f"webhdfs://{rest}", hint="webhdfs://host:port/path")
    return _normalized("webhdfs", rest)


def _normalized(scheme: str, rest: str) -> str:
    authority, _, path = rest.partition("/")
    if "@" in authority:
        raise ConfigError(
            "URL of HDFS has a user in it", hint="remove it; set HADOOP_USER_NAME or WEBHDFS_DELEGATION_TOKEN"
        )
    try:
        urlsplit(f"//{authority}").port  # noqa: B018 - it raises
    except ValueError as error:
        raise ConfigError(
            "URL has a port that is not a number",
            path=f"{scheme}://{rest}",
            hint=f"{scheme}://host:port/path",
        ) from error
    return f"{scheme}://{authority}{posixpath.normpath('/' + path.lstrip('/')).rstrip('/')}"
