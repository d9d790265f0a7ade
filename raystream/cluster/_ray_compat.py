"""Everything that is used of Ray beyond its public API; `tests/ray/test_ray_compat.py` pins it.

Ray reads its settings for authentication once, when it is imported, and offers no way to say
them to `ray.init`.  It finds the cluster that `ray start` has left on this machine only together
with those of any other process, which are nobody's business.  And it prints the raylet's
remarks on dead workers to standard output, where only a job's results belong.
"""

import os

from ray._private import utils as ray_utils
from ray._private import worker as ray_worker
from ray._private.authentication.authentication_token_setup import (
    maybe_enable_token_auth_if_token_available,
)
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

AUTH_MODE = "RAY_AUTH_MODE"
AUTH_TOKEN = "RAY_AUTH_TOKEN"  # noqa: S105 - a name
AUTH_TOKEN_PATH = "RAY_AUTH_TOKEN_PATH"  # noqa: S105 - likewise


def set_authentication(mode: str | None, token: str | None) -> None:
    """Use this mode and token for the next `ray.init`; None takes back what was set."""
    for name, value in ((AUTH_MODE, mode), (AUTH_TOKEN, token)):
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def use_own_token() -> None:
    """Authenticate with the user's token, if there is one and the mode is not set; as Ray does for `auto`."""
    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def started_cluster_address() -> str | None:
    """Return the address of the cluster that `ray start` last started or joined on this machine."""
    address: str | None = ray_utils.read_ray_address(None)
    return address


def silence_raylet() -> None:
    """Keep what Ray says about workers off standard output; we say it ourselves."""
    ray_worker._worker_logs_enabled = False
