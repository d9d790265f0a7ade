"""Everything that is used of Ray beyond its public API; `tests/ray/test_ray_compat.py` pins it.

Ray reads its settings for authentication once, when it is imported, and offers no way to say
them to `ray.init`.  It finds the cluster that `ray start` has left on this machine only together
with those of any other process, which are nobody's business.  It prints the raylet's remarks on
dead workers to standard output, where only a job's results belong.  And it tells its libraries alone which
nodes are about to go, and what is free on each; and where a placement group would best be.
"""

import os

from ray._private import state as ray_state
from ray._private import utils as ray_utils
from ray._private import worker as ray_worker
from ray._private.authentication.authentication_token_setup import (
    maybe_enable_token_auth_if_token_available,
)
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]
from ray.util.placement_group import PlacementGroup, placement_group

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


def draining_nodes() -> dict[str, int]:
    """Return the ids of nodes that are about to go, with the time in ms of the epoch, or 0; blocks."""
    draining: dict[str, int] = ray_state.state.get_draining_nodes()
    return draining


def free_resources_by_node() -> dict[str, dict[str, float]]:
    """Return what nobody has reserved on each node, by its id; blocks."""
    free: dict[str, dict[str, float]] = ray_state.state.available_resources_per_node()  # type: ignore[no-untyped-call]
    return free


def placement_group_of_one(
    bundle: dict[str, float], *, name: str, labels: dict[str, str], near: str | None, detached: bool
) -> PlacementGroup:
    """Return a new placement group with one bundle, which may wait for room; blocks.

    Args:
        bundle: what it reserves.
        name: of the group, unlike that of any other one in the namespace.
        labels: Ray's label selector for its node.
        near: the node that it takes while that has room; None for the one with the most room.
        detached: it stays when the process that makes it dies.
    """
    group: PlacementGroup = placement_group(
        [bundle],
        strategy="SPREAD" if near is None else "STRICT_PACK",
        name=name,
        lifetime="detached" if detached else None,
        bundle_label_selector=[labels] if labels else None,
        _soft_target_node_id=near,
    )
    return group


def silence_raylet() -> None:
    """Keep what Ray says about workers off standard output; we say it ourselves."""
    ray_worker._worker_logs_enabled = False
