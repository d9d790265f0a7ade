"""Why a Ray cluster was not joined, in words that say what to do."""

import os
from pathlib import Path

from raystream.cluster import _ray_compat as compat
from raystream.cluster.address import without_credentials
from raystream.errors import ClusterNotFoundError, ConfigError

_CAUSE_CHARACTERS_MAX = 300


def refused(address: str, error: Exception) -> ConfigError:
    """Return the error for a cluster that wants a token, and has got another one or none."""
    if _shows_token():
        message = "Ray cluster refuses this client's token"
        hint = (
            "RAY_AUTH_TOKEN, or the file that RAY_AUTH_TOKEN_PATH names, must hold the token with which the"
            " cluster was started; `ray get-auth-token` prints it on its head"
        )
    else:
        message = "Ray cluster wants a token, and this client has shown none"
        hint = (
            "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to the cluster's token or RAY_AUTH_TOKEN_PATH to a"
            " file with it; `ray get-auth-token` prints it on the cluster's head"
        )
        if _own_token_path().is_file():
            hint += f"; RAY_AUTH_MODE=token alone shows it the one in {_own_token_path()}"
    return ConfigError(message, hint=hint, address=address, cause=first_line(error))


def not_joined(address: str, error: Exception) -> ClusterNotFoundError | ConfigError:
    """Return the error for a cluster that answers and could not be joined all the same."""
    text = str(error)
    causes = f"{text} {error.__cause__ or ''}"
    if "InvalidAuthToken" in causes or "Unauthenticated" in causes:
        return refused(address, error)
    if "ersion mismatch" in text:
        return ConfigError(
            "Ray cluster runs another version of Python or Ray",
            hint="use the versions of the cluster here, or those of this machine there",
            address=address,
            cause=" ".join(text.split())[:_CAUSE_CHARACTERS_MAX],
        )
    return ClusterNotFoundError(
        "no Ray cluster could be joined at the address",
        hint="on a machine that is not of the cluster give the address of its dashboard,"
        " --address http://HEAD:8265; on one that is, host:port of its head",
        address=address,
        cause=first_line(error),
    )


def first_line(error: Exception) -> str:
    """Return the first line of what an exception says, fit to be shown."""
    return without_credentials(str(error).strip().partition("\n")[0])[:_CAUSE_CHARACTERS_MAX]


def _shows_token() -> bool:
    """Return whether this process authenticates, and has something to do it with."""
    named = any(os.environ.get(name) for name in (compat.AUTH_TOKEN, compat.AUTH_TOKEN_PATH))
    wanted = os.environ.get(compat.AUTH_MODE, "").lower() == "token"
    return wanted and (named or _own_token_path().is_file())


def _own_token_path() -> Path:
    return Path.home() / ".ray" / "auth_token"
