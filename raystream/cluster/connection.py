"""The Ray cluster that this process is connected to: found, or started for its lifetime.

    --address or RAY_ADDRESS given     that cluster, or an error
    otherwise  to run a job            one that this process starts and takes with it (embedded)
               to run a job detached   the one that `ray start` has left on this machine
               to find jobs            the embedded ones of this user, and the one of `ray start`

A process is connected to one cluster at a time, since Ray's state is global.
"""

import atexit
import logging
import math
import os
import secrets
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import ray
from ray.exceptions import AuthenticationError

from raystream.cluster import _ray_compat as compat
from raystream.cluster.address import answers_as_grpc, checked_address, given_address
from raystream.cluster.refusals import not_joined, refused
from raystream.cluster.registration import RegisteredCluster, Registration, registered_clusters
from raystream.errors import ClusterNotFoundError, ConfigError

logger = logging.getLogger(__name__)

NAMESPACE = "raystream"

_OBJECT_STORE_BYTES = 100 << 20
_CONNECT_ATTEMPTS = 3
"""Ray tries this often to reach its head; each takes up to 40 s when something else answers there."""
_START_HINT = "start one with `ray start --head`, or give the address of another one with --address"


@dataclass(frozen=True, slots=True)
class Connection:
    """What this process is connected to."""

    address: str
    embedded: bool
    """The cluster ends with this process."""


@dataclass
class _Process:
    """The connection of this process, as far as it was made here."""

    connection: Connection | None = None
    registration: Registration | None = None
    own_token: bool = False


_process = _Process()


def connect_to_run(address: str | None, *, cpus: float, detached: bool) -> Connection:
    """Connect with the cluster that a new job shall run on, and start one if need be.

    Args:
        address: what the user has given, if anything.
        cpus: CPUs that the job's slots reserve together; sizes a cluster that is started.
        detached: the job outlives this process, so its cluster must too.

    Raises:
        ClusterNotFoundError: nothing answers at the address, or there is nothing to outlive us.
        ConfigError: the address is not one of a cluster, or the cluster refuses us.
    """
    if (current := _current(address)) is not None:
        if detached and current.embedded:
            raise ClusterNotFoundError("a detached job needs a cluster that outlives it", hint=_START_HINT)
        return current
    if (given := _given(address)) is not None:
        return _attach(given, own_token=False)
    if not detached:
        return _start(cpus)
    if (started := _started()) is not None:
        return _attach(started)
    raise ClusterNotFoundError("no Ray cluster runs on this machine for a detached job", hint=_START_HINT)


def starts_cluster(address: str | None, *, detached: bool) -> bool:
    """Return whether `connect_to_run` would start a cluster on this machine."""
    return not detached and not ray.is_initialized() and given_address(address) is None


def clusters(address: str | None) -> Iterator[Connection]:
    """Connect with one cluster after the other in which jobs of this user may be.

    Raises:
        ClusterNotFoundError: there is none, or nothing answers at the address.
        ConfigError: the address is not one of a cluster, or the cluster refuses us.
    """
    if (current := _current(address)) is not None:
        yield current
        return
    if (given := _given(address)) is not None:
        yield _attach(given, own_token=False)
        return
    found = registered_clusters()
    if (started := _started()) is not None and started.address not in [one.address for one in found]:
        found.append(started)
    reached = False
    for cluster in found:
        with suppress(ClusterNotFoundError):
            connection = _attach(cluster)
            reached = True
            yield connection
    if not reached:
        raise ClusterNotFoundError("no Ray cluster runs on this machine", hint=_START_HINT)


def disconnect() -> None:
    """Leave the cluster; an embedded one ends."""
    if _process.connection is not None:
        ray.shutdown()
        _process.connection = None
    if _process.registration is not None:
        _process.registration.close()
        _process.registration = None
    if _process.own_token:
        compat.set_authentication(None, None)
        _process.own_token = False


def _current(address: str | None) -> Connection | None:
    """Return the connection that there is already, if it is the one wanted."""
    if not ray.is_initialized():
        return None
    if _process.connection is None:  # Made by the user's script.
        gcs_address = ray.get_runtime_context().gcs_address
        return Connection(gcs_address, embedded=False)
    if address is None or checked_address(address) in (_process.connection.address, "auto"):
        return _process.connection
    if _process.connection.embedded:
        raise ConfigError(
            "this process has started a cluster of its own already", hint="use one address for all its jobs"
        )
    disconnect()
    return None


def _given(address: str | None) -> RegisteredCluster | None:
    """Return the cluster that the user names, as argument or in the environment."""
    text = given_address(address)
    if text is None:
        return None
    checked = checked_address(text)
    if checked == "auto":
        started = _started()
        if started is None:
            raise ClusterNotFoundError("no Ray cluster was started on this machine", hint=_START_HINT)
        return started
    known = [cluster for cluster in registered_clusters() if cluster.address == checked]
    return known[0] if known else RegisteredCluster(address=checked)


def _started() -> RegisteredCluster | None:
    """Return the cluster that `ray start` has left on this machine, if it lives."""
    address = compat.started_cluster_address()
    return RegisteredCluster(address=address) if address and answers_as_grpc(address) else None


def _attach(cluster: RegisteredCluster, *, own_token: bool = True) -> Connection:
    """Connect with a cluster; the user's own token, if any, is shown only to clusters of this machine."""
    disconnect()
    if not answers_as_grpc(cluster.address):
        raise ClusterNotFoundError(
            "no Ray cluster answers at the address",
            hint="check that the cluster runs; the port is that of its head (6379 by default)",
            address=cluster.address,
        )
    if cluster.auth_token:
        compat.set_authentication("token", cluster.auth_token)
        _process.own_token = True
    elif own_token or compat.token_is_given():
        compat.use_own_token()
    try:
        with _own_signal_handler(), _patience():
            ray.init(
                address=cluster.address,
                namespace=NAMESPACE,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except AuthenticationError as error:
        raise refused(cluster.address, error) from error
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise not_joined(cluster.address, error) from error
    compat.silence_raylet()
    _process.connection = Connection(cluster.address, embedded=False)
    return _process.connection


def _start(cpus: float) -> Connection:
    disconnect()
    token = "" if _user_decides_authentication() else secrets.token_hex(32)
    if token:
        # Ray would else write a token for all clusters of this user into ~/.ray.
        os.environ[compat.AUTH_TOKEN] = token
        _process.own_token = True
    with _own_signal_handler():
        ray.init(
            address="local",
            num_cpus=max(math.ceil(cpus), 1),
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            namespace=NAMESPACE,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    compat.silence_raylet()
    address: str = ray.get_runtime_context().gcs_address
    cluster = RegisteredCluster(address=address, auth_token=token, pid=os.getpid())
    try:
        _process.registration = Registration(cluster)
    except OSError as error:
        logger.warning("other commands will not find this cluster", extra={"cause": str(error)})
    _process.connection = Connection(address, embedded=True)
    atexit.register(disconnect)
    return _process.connection


def _user_decides_authentication() -> bool:
    mode = os.environ.get(compat.AUTH_MODE)
    own_token = any(os.environ.get(name) for name in (compat.AUTH_TOKEN, compat.AUTH_TOKEN_PATH))
    return own_token or mode not in (None, "token")


@contextmanager
def _own_signal_handler() -> Iterator[None]:
    """Keep what SIGTERM does: Ray puts handlers of its own in its place, the last of which aborts."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _patience() -> Iterator[None]:
    """Let Ray give up soon on a head that does not answer as it should."""
    name = "RAY_gcs_server_port_wait_time_s"
    if name in os.environ:
        yield
        return
    os.environ[name] = str(_CONNECT_ATTEMPTS)
    try:
        yield
    finally:
        del os.environ[name]
