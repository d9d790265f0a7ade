"""Refuses a job that can not start as it is told to, before there is a job.

Runners call this before they make a coordinator: a wrong path is the mistake of whoever typed the
command, and shall not leave a failed job behind.  The coordinator reads the snapshot again, in
its first attempt; a store that does not answer now is left to it, since it tries more than once.

What `latest` means is found out here, once, and the job keeps the answer: by its next attempt the
newest snapshot of its name may be one of its own, or of another job.
"""

import logging
from collections.abc import Callable
from dataclasses import replace

from raystream.errors import ConfigError, StorageError
from raystream.ids import JobId
from raystream.runtime.coordinator_restore import plan_restore
from raystream.runtime.coordinator_services import JobSubmission
from raystream.runtime.coordinator_storage import JobStorage, check_directory, load_initial
from raystream.storage.latest import LATEST, Latest, find_latest

logger = logging.getLogger(__name__)

TAKE_OVER_TRIES_MAX = 10
"""Tries to go on from a job that logs something each time: it runs, and fast."""


def admit(
    submission: JobSubmission, storage: JobStorage, *, alive: Callable[[JobId], bool] = lambda _: False
) -> JobSubmission:
    """Return a job that can keep checkpoints, and whose snapshot is there and fits the program; blocks.

    Args:
        submission: the job.
        storage: its files.
        alive: tells whether an earlier job runs, so that it cannot be gone on from.

    Returns:
        The job as its coordinator gets it: what it starts from is a path, or nothing.

    Raises:
        ConfigError: `latest` without a checkpoint directory, or a store that is not supported or not usable.
        StateRestoreError: nothing is at the path, or it does not fit.
        StateCorruptError: the snapshot, or what tells which one is the latest, is damaged.
        StorageError: the store did not tell which one is the latest.
    """
    check_directory(storage)
    if submission.config.recovery.path != LATEST:
        _check_snapshot(submission, storage)
        return submission
    for _ in range(TAKE_OVER_TRIES_MAX):
        latest = _latest(submission, alive)
        recovery = replace(submission.config.recovery, path=latest.path)
        resolved = replace(submission, config=replace(submission.config, recovery=recovery))
        _check_snapshot(resolved, storage)
        if latest.take_over():  # Last: who is refused shall not have ended anything.
            return resolved
    raise ConfigError(
        "the newest job of this name runs somewhere, and completes checkpoints",
        hint="stop it there, or name a snapshot with -s PATH",
        job_name=submission.name,
    )


def _check_snapshot(submission: JobSubmission, storage: JobStorage) -> None:
    recovery = submission.config.recovery
    try:
        loaded = load_initial(storage, recovery)
    except StorageError as error:
        logger.warning("snapshot to start from could not be read yet", exc_info=error)
        return
    if loaded is not None:
        directory, metadata = loaded
        plan_restore(submission.plan, directory, metadata, allow_non_restored=recovery.allow_non_restored)


def _latest(submission: JobSubmission, alive: Callable[[JobId], bool]) -> Latest:
    config = submission.config
    if config.checkpointing.directory is None:
        raise ConfigError(
            "the latest snapshot was asked for, but there is no checkpoint directory to look in",
            hint="set execution.checkpointing.dir",
        )
    return find_latest(
        config.checkpointing.directory,
        submission.name,
        allow_older=config.recovery.allow_older,
        alive=alive,
    )
