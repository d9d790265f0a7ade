"""Jobs that take, restore, lose and delete snapshots: the real coordinator and storage, scripted slots.

What a slot stores goes through the real upload and the real book of known files; only the state itself is
made up: local files that are added and merged, as a store of sorted files does.  The history keeps its own
books on which snapshots somebody may still restore.
"""

import itertools
from dataclasses import dataclass, field

from raystream.errors import RaystreamError, StateRestoreError
from raystream.handles import SubtaskSnapshot
from raystream.ids import JobId, OperatorUid, VertexId
from raystream.keygroup import groups_of_subtask
from raystream.records.elements import Barrier
from raystream.runtime import messages as msg
from raystream.runtime.coordinator_storage import open_storage
from raystream.runtime.upload import OperatorPart, Upload, UploadsUnderWay, UploadTarget
from raystream.storage.blobs import SnapshotFiles
from raystream.storage.filesystem import split_url
from raystream.storage.layout import resolve, shared_file
from raystream.storage.log_entries import CheckpointCompletedEntry, SavepointCompleted
from raystream.storage.metadata import files_of, shared_files_of
from raystream.storage.snapshots import load_snapshot
from tests.unit.runtime.coordinator_world import INTERVAL_MS, FakeSource, World, make_plan
from tests.unit.runtime.snapshot_stores import FakeKeyed, Flaky, LocalStore

COUNT = VertexId(1)


@dataclass
class Process:
    """The process of a slot."""

    slot: int
    under_way: UploadsUnderWay = field(default_factory=UploadsUnderWay)
    store: LocalStore | None = None
    dead: bool = False


@dataclass
class Pending:
    """A snapshot that is encoded and not stored yet."""

    process: Process
    attempt: int
    checkpoint_id: int
    upload: Upload


class Job(World):
    """One job; uploads, and news of completed checkpoints, wait until the history says so."""

    def __init__(self, history, job_id, *, parallelism, num_retained, **options):
        self.history = history
        self.job_id = job_id
        self.open_fs = history.open_fs
        self.files = SnapshotFiles(history.open_fs)
        self.processes = {}
        self.uploads, self.news = [], []
        self.tokens = itertools.count()
        source = FakeSource()
        super().__init__(
            history.checkpoints,
            source=source,
            plan=make_plan(source, parallelism=parallelism),
            savepoints=history.savepoints,
            job_id=job_id,
            execution__checkpointing__num_retained=num_retained,
            execution__checkpointing__max_concurrent_checkpoints=2,
            execution__checkpointing__min_pause="0ms",
            execution__checkpointing__tolerable_failed_checkpoints=1_000,
            execution__checkpointing__data_inline_threshold="0b",
            restart_strategy__fixed_delay__attempts=1_000,
            **options,
        )

    # ---- slots -------------------------------------------------------------------

    def _acquired(self, slot):
        self.processes[slot] = Process(slot)
        super()._acquired(slot)

    def lose(self, slot):
        """The process dies; what it was writing may still arrive."""
        self.processes[slot].dead = True
        super().lose(slot)

    def _answer(self, slot, command):
        process = self.processes[slot]
        match command:
            case msg.Deploy():
                self._restore(process, command)
            case msg.TriggerCheckpoint():
                self.ack(command.checkpoint_id, 0, slot, attempt=command.attempt)
                self._take_snapshot(process, command)
                return
            case msg.CheckpointCompleted():
                self.news.append((process.store, command.checkpoint_id))
            case msg.CheckpointAborted():
                self._drop(process, lambda upload: upload.checkpoint_id == command.checkpoint_id)
            case msg.StopAttempt():
                self._drop(process, lambda upload: upload.attempt <= command.attempt)
        super()._answer(slot, command)

    def _drop(self, process, wanted):
        for upload in self.uploads:
            if upload.process is process and wanted(upload):
                upload.upload.drop()

    def _restore(self, process, command):
        process.store = LocalStore(self.history.scratch)
        for restore in command.restore.get((COUNT, process.slot), {}).values():
            directory = restore.directory
            for number, handle in enumerate(restore.keyed):
                self.files.read_handle(directory, handle.data)
                read = {file.local: self.files.read_shared(directory, file) for file in handle.shared}
                read |= {file.local: self.files.read_file(directory, file.file) for file in handle.files}
                contents = {local: b"".join(pieces) for local, pieces in read.items()}
                if number == 0 and all(local.endswith(".sst") for local in contents):
                    process.store.adopt(contents, handle, own=restore.own)
                else:  # Copied entry by entry, as those of a canonical savepoint are.
                    process.store.grow()

    def _take_snapshot(self, process, trigger):
        vertex = self.plan.vertices[COUNT]
        groups = groups_of_subtask(process.slot, vertex.max_parallelism, vertex.parallelism)
        keyed = FakeKeyed(process.store, trigger, groups)
        barrier = Barrier(
            checkpoint_id=trigger.checkpoint_id,
            kind=trigger.kind,
            savepoint_format=trigger.savepoint_format,
            created_ms=trigger.created_ms,
            directory=trigger.directory,
            stop=trigger.stop,
        )
        target = UploadTarget(
            files=self.files,
            under_way=process.under_way,
            inline_bytes_max=0,
            attempt=trigger.attempt,
            barrier=barrier,
            vertex=vertex,
            subtask=process.slot,
        )
        part = OperatorPart(uid=OperatorUid("count"), states=[], keyed=keyed, sync=lambda: None)
        upload = Upload(target, [part], [f"{next(self.tokens):08x}"])
        process.under_way.begun(trigger.checkpoint_id)
        self.uploads.append(Pending(process, trigger.attempt, trigger.checkpoint_id, upload))

    def do_upload(self, position):
        """Let one snapshot be stored, and what follows."""
        pending = self.uploads.pop(position % len(self.uploads))
        process = pending.process
        try:
            operators = pending.upload.run()
        except RaystreamError as error:
            if not pending.upload.dropped and not process.dead:
                self._report(pending, error)
            self.settle()
            return
        if process.dead:
            self.history.late(pending)
        elif pending.upload.dropped:
            pending.upload.discard()
        else:
            self._report(pending, operators)
        self.settle()

    def _report(self, pending, result):
        identity = {"attempt": pending.attempt, "checkpoint_id": pending.checkpoint_id}
        if isinstance(result, RaystreamError):
            place = {"vertex": COUNT, "subtask": pending.process.slot}
            self.report(msg.SnapshotDeclined(**identity, **place, error=result))
            return
        snapshot = SubtaskSnapshot(
            vertex=COUNT,
            subtask=pending.process.slot,
            operators=result,
            writing_from=pending.process.under_way.oldest,
        )
        self.report(msg.SnapshotAcked(**identity, snapshot=snapshot))

    def hear(self, count):
        """Let slots hear of complete checkpoints, in order."""
        for store, checkpoint_id in self.news[:count]:
            store.known.completed(checkpoint_id)
        del self.news[:count]

    # ---- what the books are checked against ------------------------------------------

    @property
    def retained(self):
        checkpoints = self.coordinator._checkpoints
        passed_over = set(checkpoints.passed_over)
        return [self.coordinator._shell.location(n) for n in checkpoints.retained if n not in passed_over]

    @property
    def damaged(self):
        """Directories of the checkpoints that stay as evidence."""
        checkpoints = self.coordinator._checkpoints
        return [self.coordinator._shell.location(n) for n in checkpoints.passed_over]

    def entries(self, kind):
        """Return what the log says to somebody who never writes it."""
        log = open_storage(self.job_id, self.config, open_fs=lambda _url: self.history.fs).log
        return [entry for entry in log.read() if isinstance(entry, kind)]


class History:
    """Jobs, one after the other, in one checkpoint directory.

    Attributes:
        kept: directories of snapshots that somebody may restore, and that no running job owns.
        strays: files that a dead process wrote after everybody had looked.
        evidence: what damaged checkpoints consist of, by their directory.
    """

    def __init__(self, fs, base, scratch):
        self.fs = fs
        self.flaky = Flaky(fs)
        self.checkpoints = f"{base}/checkpoints"
        self.savepoints = f"{base}/savepoints"
        self.scratch = scratch
        self.kept, self.strays = set(), set()
        self.evidence = {}
        self.numbers = itertools.count(1)
        self.job = None

    def open_fs(self, _url):
        return self.flaky

    def begin(self, path, *, claim, **options):
        """Start a job, perhaps from a snapshot."""
        if path is not None:
            options["execution__state_recovery__path"] = path
            options["execution__state_recovery__claim_mode"] = "claim" if claim else "no-claim"
        job_id = JobId(f"{next(self.numbers):06x}".ljust(32, "0"))  # Savepoints are named by the first six.
        self.job = Job(self, job_id, **options)
        self.job.start()
        if self.job.status == "FAILED":  # What cannot be claimed is refused, and nothing else.
            assert claim, self.job.view.error
            assert isinstance(self.job.view.error, StateRestoreError), self.job.view.error
            self.job = None
        elif claim:
            self.kept.discard(path)

    def late(self, pending):
        """A process that is dead for everybody else has written something."""
        directory = pending.upload._target.barrier.directory
        for handle in pending.upload._written:
            self.strays.add(resolve(directory, handle.path))
        self.strays |= {shared_file(directory, file.name) for file in pending.upload._shared}

    def end(self):
        """The job has ended, or its job master is gone: what it has left belongs to nobody."""
        self.kept = self.live
        self.job = None

    # ---- what must hold -----------------------------------------------------------

    @property
    def live(self):
        """Directories of all snapshots that somebody may restore."""
        job = self.job
        if job is None:
            return set(self.kept)
        savepoints = {entry.directory for entry in job.entries(SavepointCompleted)}
        self.kept |= savepoints
        return self.kept | set(job.retained)

    def needed(self):
        """Return the URLs of all files that these need; everything must be there and whole."""
        return set().union(*map(self.files_of, sorted(self.live)))

    def files_of(self, directory):
        """Return the URLs of all files of a snapshot, all read."""
        files = SnapshotFiles(lambda _url: self.fs)
        _, metadata = load_snapshot(directory, open_fs=lambda _url: self.fs)
        urls = {f"{directory}/_metadata"}
        for file in files_of(metadata):
            b"".join(files.read_file(directory, file))
            urls.add(resolve(directory, file.path))
        for file in shared_files_of(metadata):
            b"".join(files.read_shared(directory, file))
            urls.add(shared_file(directory, file.name))
        return urls

    def damage_newest(self):
        """The newest checkpoint turns out to be damaged when the job recovers."""
        newest = self.job.retained[-1]
        self.evidence[newest] = self.files_of(newest)
        self.fs.delete_file(f"{newest}/_metadata")
        self.job.fail()
        self.job.restart()

    def check(self):
        """Nothing is missing, and the log says so too."""
        self.needed()
        if self.job is not None:
            self.job.coordinator.validate()
            complete = {entry.directory for entry in self.job.entries(CheckpointCompletedEntry)}
            own = {one for one in self.job.retained if split_url(one)[0].endswith(self.job.job_id)}
            assert own <= complete, "a checkpoint is retained and not complete by the log"

    def left(self, job):
        """Return the files of a job that no snapshot needs."""
        evidence = set().union(*(self.evidence[directory] for directory in job.damaged))
        there = set(self._below(f"{self.checkpoints}/{job.job_id}"))
        return there - self.needed() - evidence - self.strays

    def _below(self, url):
        for entry in self.fs.list_dir(url):
            path = f"{url}/{entry.name}"
            if entry.directory and entry.name != "log":
                yield from self._below(path)
            elif not entry.directory and not entry.name.startswith(("graph", "archive", "probe-")):
                yield path

    def settle_down(self):
        """Let everything that is under way come to its end, without further faults."""
        job = self.job
        self.flaky.refusals.clear()
        job.silent.clear()
        job.held.clear()
        for _ in range(20):
            job.settle()
            while job.uploads:
                job.do_upload(0)
            job.hear(len(job.news))
            if job.status == "RUNNING" or job.coordinator.finished:
                return
            job.run_for(INTERVAL_MS)
        raise AssertionError(f"job never runs: {job.status} {job.view.waiting_for} {job.view.error}")

    def take_checkpoints(self, count):
        """Let some checkpoints complete."""
        for _ in range(count):
            self.job.run_for(INTERVAL_MS)
            self.settle_down()
