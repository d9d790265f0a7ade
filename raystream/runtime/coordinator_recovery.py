"""How a coordinator begins: it reads the job log before it does anything else.

    log without attempts --> taken over, if it is inherited -> the job begins
    log of a job that has ended ----> what is left of its end is done
    any other log --> taken over --> retained snapshots read --> the job goes on

A job master that begins after another one takes the log over first, by an entry of its own, and decides
by what stands before that: so nothing that an older one still appends, paused or cut off, is ever missed,
and whoever of two loses the number has lost the job.  A store that does not answer is asked again.

Requests of clients wait until it is known what they find.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from raystream.errors import FencedError, RaystreamError, StateCorruptError, StateError, StorageError
from raystream.ids import Attempt, CheckpointId
from raystream.operators.operator import Background
from raystream.protocol.job_past import MASTERS_IN_VAIN_MAX, lost_in_vain
from raystream.runtime.coordinator_log import Later
from raystream.runtime.coordinator_services import CoordinatorServices, as_error
from raystream.runtime.coordinator_storage import checksum_of
from raystream.runtime.logged_job import LoggedJob, has_begun, logged_job, masters_in_vain
from raystream.storage.log_entries import MasterStarted, newest_attempt
from raystream.storage.metadata import SnapshotMetadata

logger = logging.getLogger(__name__)

RECOVERY_RETRY_MS = 1_000
"""Time between two tries to read a job log."""
RECOVERY_TRIES_MAX = 600
"""Tries before the job is given up: its store is away, so that it could neither run nor end."""

Claimed = tuple[str, SnapshotMetadata]
"""Location and content of a snapshot that a job has claimed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveredJob:
    """A job that ran under an earlier job master."""

    logged: LoggedJob
    snapshots: dict[CheckpointId, SnapshotMetadata]
    """The checkpoints that it retains; a damaged one is missing."""
    claimed: Claimed | None = None
    """What the job started from, if that belongs to it."""


class LogReader:
    """Reads what there is of a job, in a thread; may be asked again after a `StorageError`.

    Args:
        services: the job; its program is the one that the log names.
    """

    def __init__(self, services: CoordinatorServices) -> None:
        self._storage = services.storage
        self._submission = services.submission
        self._config = services.submission.config
        self._clock = services.clock
        self._inherits = services.inherits
        self._logged: LoggedJob | None = None  # Once the log is ours.
        self._entries: list[MasterStarted] = []  # Appended by us, or perhaps: no deaths of job masters.

    def read(self) -> RecoveredJob | None:
        """Return the job, whose log is ours then; None when it has not begun.

        Raises:
            FencedError: another job master has it.
            StateError: the log is damaged, or of a format that is not read.
            StorageError: the store did not answer.
            RaystreamError: too many job masters were lost before they began the job.
        """
        if self._logged is None:
            self._logged = self._take_over()
        logged = self._logged
        if logged is None:
            return None
        claimed, retained = self._claimed(logged), logged.beginning.retained
        if claimed is None and logged.started_from_id in retained:
            # It was deleted, or given back, by what was left of the job before.
            retained = tuple(number for number in retained if number != logged.started_from_id)
            logged = replace(logged, beginning=replace(logged.beginning, retained=retained))
        own = [number for number in retained if claimed is None or number != claimed[1].checkpoint_id]
        loaded = {number: self._load(logged.locations[number]) for number in own}
        snapshots = {number: found for number, found in loaded.items() if found is not None}
        return RecoveredJob(logged=logged, snapshots=snapshots, claimed=claimed)

    def _take_over(self) -> LoggedJob | None:
        log, claims = self._storage.log, self._config.recovery.claim_mode == "claim"
        entries = [entry for entry in log.read() if entry not in self._entries]
        if not has_begun(entries):
            if (in_vain := masters_in_vain(entries)) >= MASTERS_IN_VAIN_MAX:
                raise lost_in_vain(in_vain)
            if self._inherits:
                # The first attempt may be logged yet, by a dead process whose request is still on its way.
                self._take_log(max(newest_attempt(entries), Attempt(1)))
            return None
        num_retained = self._config.checkpointing.num_retained
        logged = logged_job(entries, num_retained=num_retained, claims=claims)
        if logged.end is None:  # Nobody appends behind a terminal entry.
            program = checksum_of(self._submission.program)
            if logged.program_checksum not in (None, program):
                raise StateCorruptError(
                    "program is not the one of the job log", expected=logged.program_checksum
                )
            self._take_log(logged.attempt)
        return logged

    def _take_log(self, attempt: Attempt) -> None:
        """Append an entry behind that of the newest attempt: nobody before us can append any more."""
        entry = MasterStarted(attempt=Attempt(attempt + 1), started_ms=round(self._clock.wall_ms()))
        self._entries.append(entry)
        self._storage.log.append(entry)

    def _claimed(self, logged: LoggedJob) -> Claimed | None:
        location = logged.started_from
        if location is None or self._config.recovery.claim_mode != "claim":
            return None
        found = self._load(location)
        ours = found is not None and self._storage.claims.resume(location)
        return (location, found) if ours and found is not None else None

    def _load(self, location: str) -> SnapshotMetadata | None:
        try:
            return self._storage.snapshots.load_complete(location)[1]
        except StateError as error:
            # Whoever restores it finds out, and decides; what it alone refers to nobody can read any more.
            logger.warning("snapshot in the job log cannot be read", extra={"path": location}, exc_info=error)
            return None


class JobRecovery:
    """Reads the job log, and tells the coordinator once what it says.

    Args:
        reader: reads it.
        background: where it does.
        later: for another try.
        begin: told that the job begins, or as what it goes on.
        refused: told why nobody can go on with it here.
    """

    def __init__(
        self,
        reader: LogReader,
        background: Background,
        *,
        later: Later,
        begin: Callable[[RecoveredJob | None], None],
        refused: Callable[[RaystreamError], None],
    ) -> None:
        self._reader = reader
        self._background = background
        self._later = later
        self._begin = begin
        self._refused = refused
        self._tries = 0
        self._held: list[Callable[[], None]] = []
        self.over = False
        """It is known how the job stands."""
        self.waiting_for = ""
        """What it waits for, for people."""

    def start(self) -> None:
        """Begin to read."""
        self._tries += 1
        self._background.submit(self._reader.read, self._read)

    def hold(self, call: Callable[[], None]) -> None:
        """Make a call as soon as it is over."""
        self._held.append(call)

    def _read(self, result: Any) -> None:
        away = isinstance(result, StorageError) and not isinstance(result, FencedError)
        if away and self._tries < RECOVERY_TRIES_MAX:
            self.waiting_for = f"the job log: {result.message}"
            logger.warning("job log does not answer", extra={"tries": self._tries}, exc_info=result)
            self._later(RECOVERY_RETRY_MS, self.start)
            return
        self.over, self.waiting_for = True, ""
        if isinstance(result, Exception):
            self._refused(as_error(result, "reading of the job log"))
        else:
            self._begin(result)
        held, self._held = self._held, []
        for call in held:
            call()
