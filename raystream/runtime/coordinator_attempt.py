"""Makes an attempt ready to be deployed: the state it restores, its splits, its message to each slot.

    load `_metadata` -> match it with the plan -> claim it, if that is wanted
    -> first discovery of every source -> set up the checkpoint directory, unless that is done

Everything that may be wrong with a path, a snapshot or a source is found here, before a process
is asked for.  Outcomes of work for an older attempt are dropped.
"""

import logging
import platform
import secrets
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from raystream.errors import RaystreamError
from raystream.graph.physical import PhysicalPlan
from raystream.graph.rescaling import rescaled
from raystream.ids import Attempt, SlotId
from raystream.runtime import log_place
from raystream.runtime import messages as msg
from raystream.runtime.coordinator_end import Deletions
from raystream.runtime.coordinator_restore import Restore, dealt_anew, pickled_elsewhere, plan_restore
from raystream.runtime.coordinator_services import CoordinatorServices, as_error
from raystream.runtime.coordinator_sources import SourceCoordinator
from raystream.runtime.coordinator_storage import DirectorySetUp, load_initial
from raystream.runtime.program import pack, unpack
from raystream.runtime.restored_states import RestoreCheck
from raystream.storage.metadata import SnapshotMetadata

logger = logging.getLogger(__name__)

_SECRET_BYTES = 32
CLAIM_STAYS = "snapshot that the job started from stays claimed"
_NOT_CLEARED = "probe or program stays in the checkpoint directory"


class AttemptPreparation:
    """Prepares one attempt after the other.

    Args:
        services: the coordinator's world.
        sources: gets new enumerators for every attempt.
        deletions: take what was written into the checkpoint directory.
        restored: told directory and content of the snapshot that the job itself starts from.
        ready: told when an attempt is prepared.
        failed: told when it can not be.
    """

    def __init__(
        self,
        services: CoordinatorServices,
        sources: SourceCoordinator,
        *,
        deletions: Deletions,
        restored: Callable[[str, SnapshotMetadata], None],
        ready: Callable[[Attempt], None],
        failed: Callable[[Attempt, RaystreamError], None],
    ) -> None:
        self._services = services
        self._submission = services.submission
        self._sources = sources
        self._deletions = deletions
        self._restored = restored
        self._ready = ready
        self._failed = failed
        self._attempt = Attempt(0)
        self._base = self._plan = self._submission.plan
        self._program = self._submission.program
        self._parallelism: int | None = None  # Since the job was rescaled.
        self._restore: Restore | None = None
        recovery = self._submission.config.recovery
        self.check = RestoreCheck(self._submission.plan.slot_count, drop=recovery.allow_non_restored)
        """Of the attempt: whether what its slots have restored fits."""
        self._secret = b""
        self._directory: DirectorySetUp | None = None
        self._probe_served = False  # Every slot has read the probe, in some attempt.
        self._closed = False
        self._initial = self._submission.config.recovery  # What the job starts from.
        self._unclaimed = self._initial.claim_mode == "claim"

    @property
    def plan(self) -> PhysicalPlan:
        """The plan of the attempt; may have another (max) parallelism than the submitted one."""
        return self._plan

    @property
    def program_checksum(self) -> str | None:
        """Checksum of the stored program; None when nothing of the job is durable."""
        return None if self._directory is None else self._directory.program_checksum

    def plan_at(self, parallelism: int, *, trusted: bool = False) -> PhysicalPlan:
        """Return the plan at another parallelism, with the keys dealt out as they are now.

        Args:
            parallelism: of what was not given its own.
            trusted: the job had it before, and what it restores says how the keys are dealt out.

        Raises:
            ConfigError: the job cannot have it.
        """
        plan = _dealt_as(self._submission.plan, self._plan)
        if trusted:
            vertices = (
                replace(vertex, max_parallelism=max(vertex.max_parallelism, parallelism))
                for vertex in plan.vertices
            )
            plan = replace(plan, vertices=tuple(vertices))
        return rescaled(plan, parallelism)

    def reshape(self, parallelism: int) -> None:
        """Let the next attempts have another parallelism, which the job can have."""
        self._base = self._plan = self.plan_at(parallelism, trusted=True)
        self._parallelism = parallelism
        self._program = _repacked(self._submission.program, self._plan, parallelism)
        drop = self._submission.config.recovery.allow_non_restored
        self.check = RestoreCheck(self._plan.slot_count, drop=drop)
        self._probe_served = False  # New slots may be on nodes that have not seen it.

    def recovered(self) -> None:
        """The job has begun before: what it started from is in its log, and claimed if it was to be."""
        self._initial, self._unclaimed = replace(self._initial, path=None), False

    def begin(self, attempt: Attempt, location: str | None) -> None:
        """Prepare an attempt that restores a snapshot of this job, or else what the configuration says."""
        self._attempt = attempt
        log_place.process.attempt = str(attempt)
        self._restore = None
        self._secret = secrets.token_bytes(_SECRET_BYTES)
        if location is None:
            load: Callable[[], Any] = partial(load_initial, self._services.storage, self._initial)
        else:
            load = partial(self._services.storage.snapshots.load_complete, location)
        self._services.background.submit(load, partial(self._loaded, attempt, initial=location is None))

    def deployment(self, slot: SlotId) -> msg.Deploy:
        """Return the message that builds the subtasks of a slot."""
        restores = self._restore.subtasks if self._restore is not None else {}
        return msg.Deploy(
            job_id=self._submission.job_id,
            attempt=self._attempt,
            slot=slot,
            program=self._program,
            secret=self._secret,
            restore={
                (vertex, subtask): restore
                for (vertex, subtask), restore in restores.items()
                if self._plan.vertices[vertex].slot(subtask) == slot
            },
            ended=self._restore.ended if self._restore is not None else frozenset(),
            probe=self._directory.probe if self._directory is not None else "",
            probe_served=self._probe_served,
        )

    def slots_deployed(self) -> None:
        """Forget what was sent to the slots, each of which has read the probe."""
        self._restore = None
        self._probe_served = True

    def end(self) -> None:
        """The attempt is over; what is in the checkpoint directory stays for the next one."""
        self._attempt = Attempt(0)

    def close(self) -> None:
        """The job has ended, and so has every slot."""
        self._closed = True

    def _loaded(self, attempt: Attempt, result: Any, *, initial: bool) -> None:
        if attempt != self._attempt:
            return
        if isinstance(result, Exception):
            self._failed(attempt, as_error(result, "reading of the snapshot to restore"))
            return
        try:
            self._match(result)
        except RaystreamError as error:
            self._failed(attempt, error)
            return
        if result is not None and initial:
            self._restored(*result)
            _warn_of_pickles(result[1])
            _tell_cost(self._plan, result[1])
            if self._restore is not None and len(self._restore.ended) == len(self._plan.vertices):
                logger.warning("all sources had ended in the snapshot, as by a drain: nothing is left to run")
        self.check.begin(self._restore.gone if self._restore is not None else ())
        if result is not None and self._unclaimed and not self._own(*result):
            work = partial(self._services.storage.claims.claim, *result)
            self._services.background.submit(work, partial(self._claimed, attempt, result[0]))
        else:
            self._discover(attempt)

    def _own(self, directory: str, metadata: SnapshotMetadata) -> bool:
        return directory == self._services.storage.snapshots.checkpoint_directory(metadata.checkpoint_id)

    def _claimed(self, attempt: Attempt, directory: str, result: Any) -> None:
        if attempt == self._attempt and isinstance(result, Exception):
            self._failed(attempt, as_error(result, "claim of the snapshot"))
        elif attempt == self._attempt:
            self._unclaimed = False
            self._discover(attempt)
        elif self._closed:
            release = partial(self._services.storage.claims.release, directory)
            self._deletions.submit(release, failed=CLAIM_STAYS)

    def _discover(self, attempt: Attempt) -> None:
        states = self._restore.enumerators if self._restore is not None else None
        ended = self._restore.ended if self._restore is not None else frozenset()
        ready = partial(self._discovered, attempt)
        self._sources.begin(attempt, self._plan, states, ended=ended, ready=ready)

    def _match(self, loaded: tuple[str, SnapshotMetadata] | None) -> None:
        """Decide what each subtask reads back.

        Raises:
            StateRestoreError: the snapshot does not fit the program.
        """
        if loaded is None:
            return
        directory, metadata = loaded
        restore = plan_restore(
            self._base,
            directory,
            metadata,
            allow_non_restored=self._submission.config.recovery.allow_non_restored,
            own=self._own(directory, metadata),
        )
        self._restore = restore
        if restore.plan != self._plan:
            self._plan = restore.plan
            self._program = _repacked(self._submission.program, restore.plan, self._parallelism)

    def _discovered(self, attempt: Attempt) -> None:
        directory = self._services.storage.directory
        if directory is None or self._directory is not None:
            self._ready(attempt)
            return

        def done(result: Any) -> None:
            if isinstance(result, Exception):
                if attempt == self._attempt:
                    self._failed(attempt, as_error(result, "check of the checkpoint directory"))
                return
            if self._closed:
                self._deletions.submit(partial(directory.leave, None), failed=_NOT_CLEARED)
            elif self._directory is None:
                self._directory = result
            else:  # By an attempt that did not wait for this one.
                self._deletions.submit(partial(directory.remove_probe, result.probe), failed=_NOT_CLEARED)
            if attempt == self._attempt:
                self._ready(attempt)

        self._services.background.submit(partial(directory.set_up, self._submission.program), done)


def _repacked(program: bytes, plan: PhysicalPlan, parallelism: int | None) -> bytes:
    """Return the packed program at a parallelism, None for its own, with its keys dealt out as in a plan."""
    unpacked = unpack(program)
    own = _dealt_as(unpacked.plan, plan)
    return pack(replace(unpacked, plan=own if parallelism is None else rescaled(own, parallelism)))


def _dealt_as(plan: PhysicalPlan, other: PhysicalPlan) -> PhysicalPlan:
    """Return a plan with the max parallelism that its operators have in another one."""
    groups = {node.uid: vertex.max_parallelism for vertex in other.vertices for node in vertex.operators}
    vertices = (replace(vertex, max_parallelism=groups[vertex.operators[0].uid]) for vertex in plan.vertices)
    return replace(plan, vertices=tuple(vertices))


def _tell_cost(plan: PhysicalPlan, metadata: SnapshotMetadata) -> None:
    for vertex, operator in dealt_anew(plan, metadata):
        logger.info(
            "keys are dealt out anew under another max parallelism: every subtask reads all state",
            extra={
                "operator": operator.name,
                "stored_max_parallelism": operator.max_parallelism,
                "max_parallelism": vertex.max_parallelism,
                "subtasks": vertex.parallelism,
                "size_bytes": operator.size_bytes,
                "read_bytes": operator.size_bytes * vertex.parallelism,
            },
        )


def _warn_of_pickles(metadata: SnapshotMetadata) -> None:
    python = platform.python_version()
    if states := pickled_elsewhere(metadata, python):
        logger.warning(
            "values that Python %s pickled are read by Python %s, which may fail: state %s",
            metadata.python_version,
            python,
            ", ".join(states),
        )
