"""Ray's job API over HTTP: all that a machine needs that reaches a cluster's dashboard only.

A *Ray job* is a command that Ray runs on the cluster, with a record of how it stands, under a submission
id; for raystream that command is the client of a stream job, which is why the end of a Ray job
and that of a stream job are two things.

Ray's own client lets RAY_ADDRESS win over the address that it is given; here an address that was given wins.
"""

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from raystream.cluster import _ray_compat as compat
from raystream.cluster.address import (
    answers_as_grpc,
    answers_at_all,
    checked_address,
    dashboard_url,
    without_credentials,
)
from raystream.cluster.refusals import first_line, refused
from raystream.errors import ClusterNotFoundError, ConfigError, RaystreamError

logger = logging.getLogger(__name__)

BREAKS_MAX = 60
"""Connections in a row that may break without a new line before a log is given up."""
BREAK_S = 1.0
"""Pause between two of them."""
END_CHECKS_MAX = 40
"""Times that a command which was stopped is asked about; one that has not ended then is left to Ray."""
END_CHECK_S = 0.25
"""Pause between two of them."""

_CHATTY = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
    "ray._private.runtime_env.working_dir",
)
"""Loggers of Ray's client that tell each step of a submission, and what Ray never takes along."""

_ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""Ray's client takes an address from these; ours come from RAY_ADDRESS alone, for all commands."""
_NO_SUCH_JOB = "status code 404"


@dataclass(frozen=True, slots=True, kw_only=True)
class RayJob:
    """How a Ray job stands."""

    status: str
    """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""
    ended: bool
    exit_code: int | None
    """Of its command; None before its end, and when it was stopped or could not be started."""
    message: str


class RayJobs:
    """The Ray jobs of one cluster.

    Args:
        address: `http://HEAD:8265` of its dashboard, or `host:port` of its head; by default what
            RAY_ADDRESS says, else the cluster that runs on this machine.

    Raises:
        ClusterNotFoundError: nothing answers at the address, or there is none.
        ConfigError: the cluster refuses us, or Ray was installed without its job API.
    """

    def __init__(self, address: str | None) -> None:
        if compat.token_is_given():
            compat.use_own_token()
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.ERROR)
        url = _dashboard(address)
        self.address = without_credentials(url)
        """As it may be shown."""
        with self._errors(), _no_addresses_around():
            self._client = JobSubmissionClient(url)

    def find(self, submission_id: str) -> RayJob | None:
        """Return how a Ray job stands, or None when there is none of this id."""
        with self._errors():
            try:
                details = self._client.get_job_info(submission_id)
            except RuntimeError as error:
                if _NO_SUCH_JOB in first_line(error):
                    return None
                raise
        return RayJob(
            status=str(details.status.value),
            ended=details.status.is_terminal(),
            exit_code=details.driver_exit_code,
            message=details.message or "",
        )

    def submit(self, entrypoint: str, submission_id: str, *, runtime_env: dict[str, Any]) -> bool:
        """Start a Ray job; False when there is one of this id already, which is then left alone.

        Raises:
            ConfigError: Ray does not take it, such as for its runtime environment.
        """
        with self._errors():
            try:
                self._client.submit_job(
                    entrypoint=entrypoint, submission_id=submission_id, runtime_env=runtime_env
                )
            except (RuntimeError, ValueError, TypeError) as error:
                # Another client may have been quicker, or the answer to our own request was lost.
                if self.find(submission_id) is not None:
                    return False
                raise ConfigError(
                    "Ray does not take the job",
                    hint="the cause is what Ray says; see its documentation of runtime environments",
                    address=self.address,
                    cause=first_line(error),
                ) from error
        return True

    def follow(self, submission_id: str) -> Iterator[str]:
        """Yield what a Ray job has written and writes, in pieces of any size, until its end.

        Raises:
            ClusterNotFoundError: the cluster cannot be reached any more.
            ConfigError: it refuses us.
        """
        seen, breaks, pause = 0, 0, threading.Event()
        while True:
            passed = 0
            try:
                for piece in _stepwise(self._client.tail_job_logs(submission_id)):
                    new = piece[max(seen - passed, 0) :]
                    passed += len(piece)
                    if new:
                        seen, breaks = passed, 0
                        yield new
                job = self.find(submission_id)
                if job is None or (job.ended and passed >= seen):
                    return
            except ConfigError:
                raise
            except Exception as error:  # Ray lets those of its HTTP library through.
                logger.debug("log of Ray job broke off", extra={"cause": repr(error)})
            breaks += 1
            if breaks > BREAKS_MAX:
                raise _no_dashboard(self.address, "the log of the job broke off; the job goes on")
            pause.wait(BREAK_S)

    def stop(self, submission_id: str) -> None:
        """End a Ray job's command by SIGTERM, some seconds later by SIGKILL; wait a while for its end."""
        with self._errors():
            self._client.stop_job(submission_id)
        pause = threading.Event()
        for _ in range(END_CHECKS_MAX):
            job = self.find(submission_id)
            if job is None or job.ended:
                return
            pause.wait(END_CHECK_S)

    def forget(self, submission_id: str) -> None:
        """Drop the record of a Ray job that has ended; one that stays is no error."""
        with suppress(RaystreamError), self._errors():
            self._client.delete_job(submission_id)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn what Ray raises into errors that say what to do."""
        try:
            yield
        except RaystreamError:
            raise
        except AuthenticationError as error:
            raise refused(self.address, error) from error
        except OSError as error:  # Those of `requests` are some.
            raise _no_dashboard(self.address, first_line(error)) from error
        except RuntimeError as error:
            if "ray[default]" in str(error):
                raise ConfigError(
                    "Ray is installed here without its job API", hint="pip install 'ray[default]'"
                ) from error
            # The dashboard, or a proxy before it, has answered that it cannot.
            raise _no_dashboard(self.address, first_line(error)) from error


def _dashboard(address: str | None) -> str:
    """Return the URL of the dashboard that an address means.

    Raises:
        ClusterNotFoundError: nothing answers there.
        ConfigError: it is no address.
    """
    text = address or os.environ.get("RAY_ADDRESS") or None
    url = None if text is None else dashboard_url(text)
    if url is None:
        head = checked_address(text or "auto")
        if head == "auto":
            head = compat.started_cluster_address() or ""
        if not head:
            raise ClusterNotFoundError(
                "no Ray cluster runs on this machine",
                hint="give the address of a cluster's dashboard, such as --address http://HEAD:8265",
            )
        url = _dashboard_of_head(head) if answers_as_grpc(head) else f"http://{head}"
    if not answers_at_all(url):
        raise _no_dashboard(without_credentials(url), "nothing listens there")
    return url


def _dashboard_of_head(head: str) -> str:
    if compat.token_is_given() or head == compat.started_cluster_address():
        compat.use_own_token()
    try:
        dashboard = compat.dashboard_of(head)
    except Exception as error:
        raise refused(head, error) from error
    if dashboard is None:
        raise ClusterNotFoundError(
            "Ray cluster has no dashboard, and with it no job API",
            hint="`ray start --head` starts one where ray[default] is installed",
            address=head,
        )
    return f"http://{dashboard}"


def _no_dashboard(address: str, cause: str) -> ClusterNotFoundError:
    return ClusterNotFoundError(
        "no dashboard of a Ray cluster answers at the address",
        hint="check that the cluster runs and that this machine reaches it; the port is that of the dashboard"
        " (8265 by default)",
        address=address,
        cause=cause,
    )


@contextmanager
def _no_addresses_around() -> Iterator[None]:
    """Hide the variables that Ray's client would take an address from."""
    hidden = {name: os.environ.pop(name) for name in _ADDRESS_VARIABLES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _stepwise(pieces: AsyncIterator[str]) -> Iterator[str]:
    """Yield what an asynchronous iterator does; an interrupt ends what it waits for."""

    async def one() -> str | None:
        return await anext(pieces, None)

    with asyncio.Runner() as runner:
        while (piece := runner.run(one())) is not None:
            yield piece
