"""Threads for what blocks, apart by what may hang: a call that never returns holds up its own kind alone.

User code discovers splits and commits, storage is written, read and deleted from; any of it may hang for
minutes.  None of it may keep the job log, on which every decision waits, from being written; nor may
deletions, sweeps among them, keep an attempt from beginning.
"""

from raystream.runtime.mailbox import Mailbox, ThreadBackground

LOG_THREADS_MAX = 1
"""The log is written one entry at a time."""
METADATA_THREADS_MAX = 4
"""Metadata of checkpoints, and what an attempt reads and checks before it begins."""
DISCOVERY_THREADS_MAX = 4
DELETION_THREADS_MAX = 2
"""Files that nothing needs any more; there may be many, and only the end of the job waits for them."""
UPLOAD_THREADS_MAX = 4
"""Snapshots of a slot, and the state that it restores."""
COMMIT_THREADS_MAX = 4
"""Commits of a slot: one at a time for each of its sinks."""


class CoordinatorThreads:
    """The threads of a coordinator, which is the owner of the mailbox."""

    def __init__(self, mailbox: Mailbox) -> None:
        self.log = ThreadBackground(mailbox, name="job-log", threads_max=LOG_THREADS_MAX)
        self.metadata = ThreadBackground(mailbox, name="job-metadata", threads_max=METADATA_THREADS_MAX)
        self.discovery = ThreadBackground(mailbox, name="job-discovery", threads_max=DISCOVERY_THREADS_MAX)
        self.deletion = ThreadBackground(mailbox, name="job-deletion", threads_max=DELETION_THREADS_MAX)

    def close(self) -> None:
        """Let running work end by itself; nothing new starts."""
        for background in (self.log, self.metadata, self.discovery, self.deletion):
            background.close()


class SlotThreads:
    """The threads of a slot, whose mailbox it is."""

    def __init__(self, mailbox: Mailbox, slot: int) -> None:
        self.uploads = ThreadBackground(mailbox, name=f"slot-{slot}-upload", threads_max=UPLOAD_THREADS_MAX)
        self.commits = ThreadBackground(mailbox, name=f"slot-{slot}-commit", threads_max=COMMIT_THREADS_MAX)

    def close(self) -> None:
        """Let running work end by itself; nothing new starts."""
        self.uploads.close()
        self.commits.close()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the end of running work, after `close`; False when some kind took longer.  Blocks."""
        return self.uploads.join(timeout_s) and self.commits.join(timeout_s)
