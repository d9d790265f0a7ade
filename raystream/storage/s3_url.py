"""URLs of object stores: `s3://<bucket>/<path>`; here nothing is heavy to import."""

import re

from raystream.errors import ConfigError

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")


def s3_url(rest: str) -> str:
    """Return the URL of `<bucket>/<path>`.

    Raises:
        ConfigError: there is no bucket, or the URL has credentials, which it does not repeat.
    """
    if "@" in rest.partition("/")[0]:
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
