"""Calls of clients to a job master, which may be between two lives.

While Ray makes a new process for a master whose old one was lost, calls fail at once.  They are repeated
until one arrives: each either only asks, or names a request that is taken once.  A master that Ray calls
dead has no other life.
"""

import logging
import threading
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayError, RayTaskError

from raystream.clock import SystemClock
from raystream.errors import RaystreamError

logger = logging.getLogger(__name__)

RESTART_WAIT_S = 300.0
"""Time that a master may be between two lives before its job is given up: a node may have to start first."""
RETRY_S = 0.2
"""Pause between two tries."""


class MasterCalls:
    """Calls one job master.

    Args:
        master: its handle.
        gone: returns what it means that it is dead.
        client: versions to be shown before the first call; None when the master knows them.
    """

    def __init__(
        self,
        master: Any,
        gone: Callable[[RayError], RaystreamError],
        client: dict[str, str] | None = None,
    ) -> None:
        self._master = master
        self._client = client
        self._gone = gone
        self._clock = SystemClock()
        self._pause = threading.Event()  # Never set.

    def call(self, method: str, *arguments: Any, timeout_s: float | None = None) -> Any:
        """Return what a call returns.

        Args:
            method: of the job master.
            arguments: of the call.
            timeout_s: time that the caller has while the master cannot be reached.

        Raises:
            RaystreamError: the call has raised it, the master is gone or of another version.
            TimeoutError: the master was not reached in time.
        """
        if self._client is not None and method != "check":
            self.call("check", self._client, timeout_s=timeout_s)
            self._client = None
        began_ms, told = self._clock.monotonic_ms(), False
        while True:
            try:
                return ray.get(getattr(self._master, method).remote(*arguments))
            except RayTaskError as error:
                raise cause_of(error) from None
            except ActorUnavailableError as error:
                waited_s = (self._clock.monotonic_ms() - began_ms) / 1000.0
                if timeout_s is not None and waited_s >= timeout_s:
                    raise TimeoutError(f"job master was not reached for {waited_s:.1f} s") from error
                if waited_s >= RESTART_WAIT_S:
                    raise self._gone(error) from error
            except RayError as error:
                raise self._gone(error) from error
            if not told:
                told = True
                logger.info("job master is not there for a moment, trying again")
            self._pause.wait(RETRY_S)


def cause_of(error: RayTaskError) -> Exception:
    """Return what a call has raised in the actor."""
    return error.cause if isinstance(error.cause, RaystreamError) else error
