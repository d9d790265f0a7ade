"""Jobs on a Ray cluster as clients see them: the runner of the API, handles, and the list of jobs.

A handle talks to the job's master and keeps nothing but what it has got of the job's output, so
any number of processes may hold one job, and the job goes on when all of them have gone.
"""

import logging
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    GetTimeoutError,
    RayError,
    RayTaskError,
)

from raystream.api.meant_job import Candidate, meant_job
from raystream.api.runner import ClientRequest, OutputListener, Submission
from raystream.clock import SystemClock
from raystream.cluster.connection import (
    NAMESPACE,
    Connection,
    clusters,
    connect_to_run,
    disconnect,
    starts_cluster,
)
from raystream.cluster.job_master import (
    UPDATE_WAIT_S_MAX,
    JobMasterActor,
    job_of_master,
    kill_master,
    master_name,
)
from raystream.cluster.master_calls import MasterCalls, cause_of
from raystream.cluster.process import UNRECORDED
from raystream.cluster.publication import Seen, Update
from raystream.cluster.resources import cluster_cpus, cpus_of
from raystream.cluster.versions import own_versions
from raystream.cluster.worker import WorkerInfo
from raystream.errors import (
    ClusterNotFoundError,
    ConfigError,
    JobFailedError,
    JobNotFoundError,
    RaystreamError,
)
from raystream.ids import Attempt, JobId, JobStatus, OperatorUid
from raystream.protocol.client_requests import RequestOutcome
from raystream.runtime.coordinator_storage import check_directory, durable_directory, open_storage
from raystream.runtime.coordinator_view import JobView
from raystream.runtime.job_metrics import JobMetrics
from raystream.runtime.program import Program, pack

logger = logging.getLogger(__name__)

START_TIMEOUT_S = 120.0
"""Time that a job master has to start; the node may first have to load what it needs."""
VIEW_TIMEOUT_S = 10.0
"""Time that a job master has to answer when all of them are asked."""

_OUTCOME_WAIT_S = 5.0
"""Time for the outcome of a request to follow the end of its job."""
_WAITED_MS_MIN = 1_000.0
"""Whoever waits in shorter pieces looks at the job in between, and is told nothing here."""


class RayRunner:
    """Runs jobs on a Ray cluster: the one at the address, else one that starts with the first job."""

    def submit(self, submission: Submission) -> "RayJobHandle":
        """Start a job; returns when its master has taken it.

        Raises:
            ConfigError: the job cannot be shipped, or cannot start as configured.
            ClusterNotFoundError: there is no cluster at the address, or none for a detached job.
        """
        config = submission.config
        if starts_cluster(submission.address, detached=submission.detached):
            # The master will run here, and find out the same, only that a cluster takes seconds to start.
            check_directory(open_storage(submission.job_id, config))
        program = pack(Program(job_name=submission.name, plan=submission.plan, config=config))
        cpus = cpus_of(submission.plan, config.slot.cpus)
        connection = connect_to_run(submission.address, cpus=cpus, detached=submission.detached)
        if connection.embedded and cluster_cpus() < cpus and not _running():
            disconnect()  # It was made for a smaller job.
            connection = connect_to_run(submission.address, cpus=cpus, detached=submission.detached)
        try:
            return RayJobHandle(submission.job_id, _start_master(submission, program), connection)
        except BaseException as error:  # Also an interrupt: nobody would know of the job.
            kill_master(submission.job_id)
            if not isinstance(error, Exception):
                raise
            raise _not_started(error) from error

    def attach(self, job_id: str, *, address: str | None = None) -> "RayJobHandle":
        """Return a handle on a job that any process has submitted.

        Args:
            job_id: id of the job, a prefix of it that no other has, or a name that no other has.
            address: of the cluster; by default wherever jobs of this user may be.

        Raises:
            JobNotFoundError: no job is meant by this, or more than one.
            ClusterNotFoundError: there is no cluster.
        """
        for connection in clusters(address):
            if (found := _find(job_id, connection)) is not None:
                return found
        raise JobNotFoundError(
            "no job has this id, prefix or name", hint="`raystream list` shows all jobs", job=job_id
        )


def list_jobs(address: str | None = None) -> list[JobView]:
    """Return all jobs whose masters still answer, also those that ended a short while ago.

    Raises:
        ClusterNotFoundError: there is no cluster.
    """
    return [view for connection in clusters(address) for view in _views(_masters())]


class RayJobHandle:
    """A job, by its master."""

    def __init__(self, job_id: JobId, master: Any, connection: Connection) -> None:
        self._job_id = job_id
        self._master = master
        self._calls = MasterCalls(master, self._gone, own_versions())
        self._seen = Seen()  # With the output that was fetched.
        self._undelivered: deque[tuple[OperatorUid, Any]] = deque()
        self._final: JobView | None = None  # Once the job has ended and its output is delivered.
        self._clock = SystemClock()
        self.outlives_client = not connection.embedded
        """False when the job ends with this process, since its cluster does."""

    @property
    def job_id(self) -> JobId:
        return self._job_id

    def view(self) -> JobView:
        view: JobView = self._final or self._call("view")
        return view

    def workers(self) -> tuple[WorkerInfo, ...]:
        """Return where the job's slots run that have a process."""
        workers: tuple[WorkerInfo, ...] = self._call("workers")
        return workers

    def metrics(self) -> JobMetrics:
        metrics: JobMetrics = self._call("metrics")
        return metrics

    def watch(self, timeout_s: float | None = None) -> Iterator[JobView]:
        """Yield how the job stands, now and whenever that has changed; takes no output.

        Args:
            timeout_s: time until it is given up, in all; None goes on for ever.

        Raises:
            TimeoutError: the time is over.
        """
        return (update.view for update in self._updates(timeout_s))

    def _updates(self, timeout_s: float | None) -> Iterator[Update]:
        began_ms, seen = self._clock.monotonic_ms(), Seen(output=None)
        while True:
            waited_s = (self._clock.monotonic_ms() - began_ms) / 1000.0
            left_s = UPDATE_WAIT_S_MAX if timeout_s is None else max(timeout_s - waited_s, 0.0)
            update: Update = self._call(
                "update", seen, left_s, timeout_s=None if timeout_s is None else left_s
            )
            if update.seen != seen:
                seen = update.seen
                yield update
            if timeout_s is not None and left_s <= 0.0:
                raise TimeoutError(f"job {self._job_id} is {update.view.status.value} after {timeout_s} s")

    def request(self, request: ClientRequest) -> str:
        outcome = self._outcome(request, None)
        if outcome is None:
            with suppress(TimeoutError):
                outcome = self._outcome(request, _OUTCOME_WAIT_S)
        if outcome is None:
            raise RaystreamError("job ended before the request was carried out", job_id=self._job_id)
        if outcome.error is not None:
            raise outcome.error
        return outcome.answer

    def _outcome(self, request: ClientRequest, timeout_s: float | None) -> RequestOutcome | None:
        """Make a request and wait for its outcome; without a time-out until the job's end at most.

        Another life of the job master knows nothing of a request whose outcome is not in the job log, so
        that it is made again; each takes it once.
        """
        life = self._call("request", request)
        for update in self._updates(timeout_s):
            if update.seen.life != life:
                life = self._call("request", request)
                continue  # With what comes of that.
            outcome = update.view.outcome(request.request_id)
            if outcome is not None or (update.view.status.terminal and timeout_s is None):
                return outcome
        return None

    def wait(
        self, timeout_s: float | None, *, until: frozenset[JobStatus], listener: OutputListener | None
    ) -> JobView:
        if self._final is not None:
            return self._final
        if listener is None:
            return next(
                view for view in self.watch(timeout_s) if view.status in until or view.status.terminal
            )
        began_ms, told = self._clock.monotonic_ms(), ""
        self._seen = replace(self._seen, version=0)  # The first answer comes at once.
        while True:
            waited_ms = self._clock.monotonic_ms() - began_ms
            left_s = UPDATE_WAIT_S_MAX if timeout_s is None else timeout_s - waited_ms / 1000.0
            update = self._update(max(left_s, 0.0), bounded=timeout_s is not None)
            while self._undelivered:
                # Taken out first: a listener that raises has had it.
                uid, payload = self._undelivered.popleft()
                listener(uid, payload)
            view = update.view
            if view.status.terminal and update.complete:
                self._final = view
            if view is self._final or (view.status in until and not view.status.terminal):
                return view
            if left_s <= 0.0:
                raise TimeoutError(f"job {self._job_id} is {view.status.value} after {timeout_s} s")
            if view.waiting_for not in ("", told) and waited_ms > _WAITED_MS_MIN:
                told = view.waiting_for
                logger.warning("waiting for resources for %d s: %s", view.waiting_ms // 1000, told)

    def _update(self, timeout_s: float, *, bounded: bool) -> Update:
        wait_s = min(timeout_s, UPDATE_WAIT_S_MAX)
        update: Update = self._call("update", self._seen, wait_s, timeout_s=timeout_s if bounded else None)
        if self._seen.life not in ("", update.seen.life):
            logger.warning("job master was lost, the job goes on under another one")
        self._seen = update.seen
        self._undelivered.extend(update.outputs)
        if update.lost_values:
            raise RaystreamError(
                "collected values were dropped: they came faster than they were fetched",
                hint="write large results with a sink instead of collecting them",
                job_id=self._job_id,
                batches=update.lost_values,
            )
        if update.lost_lines:
            logger.warning("printed lines were dropped", extra={"lines": update.lost_lines})
        return update

    def _call(self, method: str, *arguments: Any, timeout_s: float | None = None) -> Any:
        return self._calls.call(method, *arguments, timeout_s=timeout_s)

    def _gone(self, error: RayError) -> RaystreamError:
        if self._final is not None:
            return JobNotFoundError(
                "job has ended, and its master too", job_id=self._job_id, status=self._final.status.value
            )
        if isinstance(error, ActorUnavailableError):
            return RaystreamError(
                "job master does not come back; the job goes on when it does",
                hint="it waits for a node or for its checkpoint directory; see `raystream list`",
                job_id=self._job_id,
            )
        return JobFailedError(
            "job master is gone, and the job with it",
            hint="start the job again with `-s latest`; a job outlives its job master only with"
            " execution.checkpointing.interval and .dir set, and begins anew without them; one whose records"
            " execute_and_collect returns never does",
            job_id=self._job_id,
            cause=" ".join(str(error).split())[:300],
        )

    def __repr__(self) -> str:
        return f"RayJobHandle({self._job_id})"


def surviving(submission: Submission) -> str | None:
    """Return the directory by which another life of the job's master goes on; None when it has no other.

    A list of collected records must not lack, in silence, those that nobody had fetched when a life ended.
    """
    return None if submission.collects else durable_directory(submission.config)


def _start_master(submission: Submission, program: bytes) -> Any:
    """Start the master of a job and return it when it has taken the job."""
    directory = surviving(submission)
    actor_class: Any = ray.remote(JobMasterActor)
    master = actor_class.options(
        name=master_name(submission.job_id),
        namespace=NAMESPACE,
        lifetime="detached",
        num_cpus=0,
        max_restarts=0 if directory is None else -1,
        max_task_retries=0,
        **UNRECORDED,
    ).remote(own_versions(), submission.job_id, directory)
    ray.get(master.accept.remote(program), timeout=START_TIMEOUT_S)
    return master


def _masters() -> dict[JobId, Any]:
    """Return the job masters of the cluster."""
    names = [
        actor["name"]
        for actor in ray.util.list_named_actors(all_namespaces=True)
        if actor["namespace"] == NAMESPACE
    ]
    masters = {}
    for name in sorted(names):
        job_id = job_of_master(name)
        if job_id is None:
            continue
        try:
            masters[job_id] = ray.get_actor(name, namespace=NAMESPACE)
        except ValueError:
            continue  # It has exited since it was listed.
    return masters


def _views(masters: dict[JobId, Any]) -> list[JobView]:
    """Return the views of the masters; of one that stays between two lives, that it is."""
    views = []
    for job_id, question in [(job_id, master.view.remote()) for job_id, master in masters.items()]:
        try:
            views.append(ray.get(question, timeout=VIEW_TIMEOUT_S))
        except ActorUnavailableError:
            views.append(_next_life(job_id, masters[job_id]))
        except (RayError, RaystreamError) as error:
            if not isinstance(getattr(error, "cause", None), JobNotFoundError):  # One that has ended.
                logger.warning("job master does not answer", extra={"job_id": job_id, "cause": repr(error)})
    return views


def _next_life(job_id: JobId, master: Any) -> JobView:
    """Return the view of the next life of a master, if it begins soon."""
    calls = MasterCalls(master, lambda _: RaystreamError("job master is gone", job_id=job_id))
    with suppress(TimeoutError, RaystreamError):
        view: JobView = calls.call("view", timeout_s=VIEW_TIMEOUT_S)
        return view
    return JobView(
        job_id=job_id,
        name="",
        status=JobStatus.RESTARTING,
        parallelism=0,
        attempt=Attempt(0),
        restarts=0,
        records_in=0,
        records_out=0,
        duration_ms=0,
        waiting_for="another process of its job master",
    )


def _running() -> bool:
    """Return whether a job of the cluster has not ended."""
    return any(not view.status.terminal for view in _views(_masters()))


def _find(job: str, connection: Connection) -> RayJobHandle | None:
    """Return the job of this cluster that an id, prefix or name means."""
    masters = _masters()
    meant: JobId | None = JobId(job)
    if meant not in masters:
        unnamed = {job_id: Candidate(job_id, "", ended=False) for job_id in masters}  # Not all may answer.
        named = {v.job_id: Candidate(v.job_id, v.name, v.status.terminal) for v in _views(masters)}
        meant = meant_job(job, [*(unnamed | named).values()])
    return None if meant is None else RayJobHandle(meant, masters[meant], connection)


def _not_started(error: Exception) -> Exception:
    """Return why a job master did not start."""
    if isinstance(error, RayTaskError):
        return cause_of(error)
    if isinstance(error, GetTimeoutError):
        return ClusterNotFoundError(
            "job master did not start in time",
            hint="`ray status` shows whether the cluster has a node that can start processes",
            timeout_s=START_TIMEOUT_S,
        )
    if "No module named 'raystream" in str(error):
        return ConfigError(
            "raystream is not installed on the cluster",
            hint="install the same version of raystream on every node of the cluster",
        )
    if isinstance(error, ActorDiedError):
        return RaystreamError("job master could not start", cause=str(error))
    return error
