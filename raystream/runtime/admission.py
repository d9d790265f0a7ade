"""Refuses a job that can not start from what it is told to, before there is a job.

Runners call this before they make a coordinator: a wrong path is the mistake of whoever typed the
command, and shall not leave a failed job behind.  The coordinator reads the snapshot again, in
its first attempt; a store that does not answer now is left to it, since it tries more than once.
"""

import logging

from raystream.errors import StorageError
from raystream.runtime.coordinator_restore import plan_restore
from raystream.runtime.coordinator_services import JobSubmission
from raystream.runtime.coordinator_storage import JobStorage, load_initial

logger = logging.getLogger(__name__)


def check_start(submission: JobSubmission, storage: JobStorage) -> None:
    """Accept a job whose snapshot to start from is there and fits the program; blocks.

    Raises:
        ConfigError: `latest` without a checkpoint directory, or a store that is not supported.
        StateRestoreError: nothing is at the path, or it does not fit.
        StateCorruptError: the snapshot is damaged.
    """
    config = submission.config
    try:
        loaded = load_initial(storage, config, submission.name)
    except StorageError as error:
        logger.warning("snapshot to start from could not be read yet", exc_info=error)
        return
    if loaded is not None:
        directory, metadata = loaded
        plan_restore(
            submission.plan, directory, metadata, allow_non_restored=config.recovery.allow_non_restored
        )
