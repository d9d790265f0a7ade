"""URLs and names of object stores: `s3://<bucket>/<path>`; here nothing is heavy to import."""

import re
from urllib.parse import quote, unquote

from raystream.errors import ConfigError
from raystream.storage.filesystem import TEMPORARY_PREFIX

_UNFINISHED = re.compile(re.escape(TEMPORARY_PREFIX) + r"(?P<name>.+)~(?P<upload>[^~]+)")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")


def s3_url(rest: str) -> str:
    """Return the URL of `<bucket>/<path>`.

    Raises:
        ConfigError: there is no bucket, or the URL has credentials, which it does not repeat.
    """
    if {"@", ":"} & set(rest.partition("/")[0]):  # A secret key may have slashes, so that `@` comes later.
        raise ConfigError(
            "URL of an object store has credentials in it",
            hint="remove them; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
        )
    bucket, *names = [name for name in rest.split("/") if name] or [""]
    if not _BUCKET.fullmatch(bucket) or {".", ".."} & set(names):
        raise ConfigError(
            "URL of an object store does not name a bucket and a path in it",
            path=f"s3://{rest}",
            hint="write it as s3://<bucket>/<path>",
        )
    return "/".join(("s3:/", bucket, *names))


def place_of(url: str) -> dict[str, str]:
    """Return bucket and key of a URL, as requests want them."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return {"Bucket": bucket, "Key": key}


def prefix_below(key: str) -> str:
    """Return what the keys below a directory start with."""
    return f"{key}/" if key else ""


def unfinished_name(name: str, upload_id: str) -> str:
    """Return the name under which an upload that is neither completed nor aborted is listed as a file."""
    # `quote` leaves `~` as it is, and the ids of some stores begin with `2~`.
    return f"{TEMPORARY_PREFIX}{name}~{quote(upload_id, safe='').replace('~', '%7E')}"


def unfinished_of(listed: str) -> tuple[str, str] | None:
    """Return name and upload id of such a file; None for any other one."""
    match = _UNFINISHED.fullmatch(listed)
    return (match["name"], unquote(match["upload"])) if match else None
