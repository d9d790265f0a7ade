"""Everything that is used of Ray beyond its public API; `tests/ray/test_ray_compat.py` pins it.

Ray reads its settings for authentication once, when it is imported, and offers no way to say
them to `ray.init`.  It finds the cluster that `ray start` has left on this machine only together
with those of any other process, which are nobody's business.  It prints the raylet's remarks on dead
workers to standard output, where only a job's results belong.  It tells where a cluster has its dashboard,
and a process where its log is, only in passing.  And it tells its libraries alone which nodes are about to
go, what is free on each, and where a placement group would best be.
"""

import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants
from ray._private import state as ray_state
from ray._private import utils as ray_utils
from ray._private import worker as ray_worker
from ray._private.authentication.authentication_token_setup import (
    maybe_enable_token_auth_if_token_available,
)
from ray._private.runtime_env import packaging
from ray._raylet import AuthenticationTokenLoader, Config, GcsClient  # type: ignore[attr-defined]
from ray.util.annotations import RayDeprecationWarning
from ray.util.placement_group import PlacementGroup, placement_group

Exclusion = Callable[[Path], bool]
"""Whether a path is not packed."""

_KV_TIMEOUT_S = 10.0
_silent = logging.Logger("packages", logging.ERROR)  # noqa: LOG001 - says nothing to anybody

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


def token_is_given() -> bool:
    """Return whether the environment names a token, which is then meant for whatever cluster is addressed."""
    return any(os.environ.get(name) for name in (AUTH_TOKEN, AUTH_TOKEN_PATH))


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


def dashboard_of(address: str) -> str | None:
    """Return `host:port` of the dashboard of the cluster whose head has this address; None without one."""
    found: bytes | None = GcsClient(address=address).internal_kv_get(
        ray_constants.DASHBOARD_ADDRESS.encode(), ray_constants.KV_NAMESPACE_DASHBOARD, timeout=_KV_TIMEOUT_S
    )
    return found.decode() if found else None


def exclusion(directory: Path, patterns: list[str]) -> Exclusion:
    """Return whether a path below the directory fits a pattern, as Ray decides when it packs that."""
    everywhere = ray_constants.get_runtime_env_default_excludes()
    rule: Exclusion = packaging._get_excludes(directory, [*everywhere, *patterns])
    return rule


def exclusions_of_files(directory: Path) -> list[Exclusion]:
    """Return the rules of the directory's own `.gitignore` and `.rayignore`, as Ray honours them."""
    honoured = os.environ.get(ray_constants.RAY_RUNTIME_ENV_IGNORE_GITIGNORE, "0") != "1"
    rules: list[Exclusion] = packaging.get_excludes_from_ignore_files(
        directory, include_gitignore=honoured, logger=_silent
    )
    return rules


def logs_directory() -> str:
    """Return the directory of this node where Ray keeps what its processes write."""
    node: Any = ray_worker._global_node
    directory: str = node.get_logs_dir_path()
    return directory


def actor_was_restarted() -> bool:
    """Return whether the actor that this process is has lived in another one before."""
    with warnings.catch_warnings():
        # Ray asks a property of its own that it has deprecated, and would say so in every log of a job.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        return bool(ray.get_runtime_context().was_current_actor_reconstructed)


def silence_raylet() -> None:
    """Keep what Ray says about workers off standard output; we say it ourselves."""
    ray_worker._worker_logs_enabled = False
