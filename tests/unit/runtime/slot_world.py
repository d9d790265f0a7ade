"""Slots that a test steps by hand, and a coordinator that does what the test says."""

import pickle
from collections import deque
from functools import partial
from typing import Any, ClassVar

from raystream import KeyedProcessFunction, StreamEnvironment, ValueStateDescriptor
from raystream.config.options import JobConfig
from raystream.handles import InlineHandle
from raystream.ids import JobId, SlotId
from raystream.operators.source import EnumeratorContext
from raystream.operators.user_code import as_exception
from raystream.records.elements import SnapshotKind
from raystream.runtime import messages as msg
from raystream.runtime.frame import FrameKind
from raystream.runtime.links import MemoryLinks, MemoryNetwork
from raystream.runtime.mailbox import Mailbox
from raystream.runtime.program import Program, pack, unpack
from raystream.runtime.slot import Slot
from raystream.storage.blobs import SnapshotFiles
from raystream.testing.source_run import ManualClock
from tests.unit.api.fakes import FakeRunner

ROUNDS_MAX = 5000
JOB = JobId("ab" * 16)


# ---- parts of the jobs ------------------------------------------------------


class Count(KeyedProcessFunction):
    """Emits (word, how often it came)."""

    def open(self, ctx):
        self.seen = ctx.get_state(ValueStateDescriptor("seen", int, default=0))

    def process_element(self, value, ctx):
        self.seen.update(self.seen.value() + 1)
        yield value, self.seen.value()


class VisibleSink:
    """A transactional sink whose output is seen in `VisibleSink.visible`, in this process."""

    visible: ClassVar[list[Any]] = []
    aborted: ClassVar[list[Any]] = []

    def open_writer(self, context):
        return _Writer()

    def open_committer(self, context):
        return _Committer()


class _Writer:
    def __init__(self):
        self.values = []

    def start(self):
        pass

    def write(self, batch):
        self.values += batch.values

    def prepare_commit(self, checkpoint_id):
        values, self.values = self.values, []
        return [pickle.dumps(values)] if values else []

    def sync(self):
        pass

    def keep(self, committables):
        pass

    def abort(self):
        VisibleSink.aborted += self.values

    def close(self):
        pass


class _Committer:
    def commit(self, committables):
        for committable in committables:
            VisibleSink.visible += pickle.loads(committable)


def first_letter(word):
    return word[0]


def word_count(source, **arguments):
    """Return the program that counts the words of a source."""

    def build(env):
        words = env.from_source(source, name="words", uid="words")
        words.key_by(first_letter).process(Count(), name="count", uid="count").sink_to(
            VisibleSink(), uid="out"
        )

    return program(build, **arguments)


def program(build, *, parallelism=2, **options):
    """Return the program of a job."""
    runner = FakeRunner()
    env = StreamEnvironment(runner=runner, parallelism=parallelism, **options)
    build(env)
    env.execute("job")
    (submission,) = runner.submissions
    config: JobConfig = submission.config
    return Program(job_name="job", plan=submission.plan, config=config)


# ---- the world --------------------------------------------------------------


class ManualBackground:
    """Work waits in `waiting` until the world runs it; its outcome comes through the mailbox.

    Attributes:
        held: nothing is run until this is taken back.
        eager: work is run the moment it is submitted, as by a thread that wins every race.
    """

    def __init__(self, mailbox):
        self.mailbox = mailbox
        self.held = False
        self.eager = False
        self.waiting = deque()

    def submit(self, work, done):
        self.waiting.append((work, done))
        if self.eager:
            self.run()

    def run(self):
        ran = bool(self.waiting) and not self.held
        while self.waiting and not self.held:
            work, done = self.waiting.popleft()
            try:
                result = work()
            except BaseException as error:
                result = as_exception(error)
            self.mailbox.post(partial(done, result))
            del work, done, result  # As in `ThreadBackground`.
        return ran


class LoggedLinks(MemoryLinks):
    """Memory links that note the control elements they send."""

    def __init__(self, network, log):
        super().__init__(network, lambda: None)
        self._log = log

    def send(self, peer, channel, kind, payload):
        if kind is FrameKind.CONTROL:
            self._log.append("barrier sent")
        super().send(peer, channel, kind, payload)


class LoggedFiles(SnapshotFiles):
    """Notes what is written, and fails on demand; everything stays inline."""

    def __init__(self, log):
        super().__init__()
        self.error = None
        self._log = log

    def write_blob(self, directory, name, data, *, inline_bytes_max):
        self._log.append("bytes written")
        if self.error is not None:
            raise self.error
        return InlineHandle(data=data if isinstance(data, bytes) else b"".join(data))


class World:
    """Slots, their clock and network, and everything that they reported.

    Attributes:
        backgrounds: of the uploads of each slot.
        commits: the backgrounds of their commits.
        reports: of all slots, in order.
        log: barriers sent to other slots and blobs written, in order.
    """

    def __init__(self, job, slots=2, *, links=None, **slot_options):
        """Make the slots; `links` makes those of one slot, in memory and logged by default."""
        self.packed = pack(job)
        self.program = unpack(self.packed)
        self.clock = ManualClock()
        self.reports: list[Any] = []
        self.log: list[str] = []
        self.files = LoggedFiles(self.log)
        self.network = MemoryNetwork()
        self.attempt = 0
        self.slots, self.backgrounds, self.commits, self.links = [], [], [], []
        for number in range(slots):
            mailbox = Mailbox(lambda: None)
            self.backgrounds.append(ManualBackground(mailbox))
            self.commits.append(ManualBackground(mailbox))
            self.links.append(links() if links is not None else LoggedLinks(self.network, self.log))
            self.slots.append(
                Slot(
                    SlotId(number),
                    clock=self.clock,
                    mailbox=mailbox,
                    uploads=self.backgrounds[-1],
                    commits=self.commits[-1],
                    links=self.links[-1],
                    report=self.reports.append,
                    files=self.files,
                    **slot_options,
                )
            )

    # ---- steps ----

    def step(self, slots=None):
        """Let slots do a round, run what may block, answer requests for splits; True when there was work."""
        worked = False
        for number in range(len(self.slots)) if slots is None else slots:
            worked = self.slots[number].step() or worked
            worked = self.backgrounds[number].run() or worked
            worked = self.commits[number].run() or worked
        return self._answer_requests() or worked

    def settle(self, slots=None):
        """Step until nothing is left to do; time stands still."""
        for _ in range(ROUNDS_MAX):
            if not self.step(slots):
                return
        raise AssertionError("the slots never come to rest")

    def all(self, kind):
        """Return the reports of a kind."""
        return [report for report in self.reports if isinstance(report, kind)]

    def failure(self):
        """Return the only failure."""
        (failure,) = self.all(msg.SlotFailed)
        return failure

    # ---- the coordinator ----

    def tell(self, command, slots=None):
        """Deliver a command to slots, all by default."""
        for number in range(len(self.slots)) if slots is None else slots:
            self.slots[number].deliver(command)

    def send(self, command, /, *, slots=None, **fields):
        """Deliver a command of the current attempt, then settle."""
        self.tell(command(attempt=self.attempt, **fields), slots)
        self.settle()

    def deploy(self, *, restore=None, probe="", probe_served=False, sources=None, ended=()):
        """Begin the next attempt, up to the point where every slot is deployed or has failed."""
        self.attempt += 1
        self.reports.clear()
        self.enumerators = {}
        for vertex in self.program.plan.vertices:
            if vertex.source is not None:
                context = EnumeratorContext(
                    parallelism=vertex.parallelism,
                    max_parallelism=vertex.max_parallelism,
                    restored=sources is not None,
                )
                uid = vertex.operators[0].uid
                self.enumerators[uid] = vertex.source.enumerator(context, sources and sources[uid])
        for slot in self.slots:
            slot.deliver(
                msg.Deploy(
                    job_id=JOB,
                    attempt=self.attempt,
                    slot=slot.id,
                    program=self.packed,
                    secret=b"s" * 32,
                    restore=restore or {},
                    ended=frozenset(ended),
                    probe=probe,
                    probe_served=probe_served,
                )
            )
        self.settle()

    def connect(self):
        """Tell every slot where its peers are."""
        self.send(msg.Connect, addresses={r.slot: r.address for r in self.all(msg.SlotDeployed)})

    def begin(self, **arguments):
        """Begin the next attempt and let it run until nothing moves."""
        self.deploy(**arguments)
        self.connect()
        assert len(self.all(msg.SlotReady)) == len(self.slots)
        self.send(msg.Start)

    def trigger(self, checkpoint_id, *, slots=None, stop=False, drain=False, kind=SnapshotKind.CHECKPOINT):
        """Take a checkpoint; return what was acknowledged."""
        self.send(
            msg.TriggerCheckpoint,
            slots=slots,
            checkpoint_id=checkpoint_id,
            kind=kind,
            created_ms=self.clock.wall_ms(),
            directory="memory://snapshot",
            stop=stop,
            drain=drain,
        )
        return self.acks(checkpoint_id)

    def acks(self, checkpoint_id):
        """Return the snapshots of a checkpoint that were acknowledged, by (vertex, subtask)."""
        return {
            (ack.snapshot.vertex, ack.snapshot.subtask): ack.snapshot
            for ack in self.all(msg.SnapshotAcked)
            if ack.checkpoint_id == checkpoint_id
        }

    @property
    def subtasks(self):
        """Return every (vertex, subtask) of the plan."""
        return {(vertex.id, subtask) for vertex, subtask in self.program.plan.subtasks()}

    def source_states(self):
        """Return the state of every enumerator."""
        return {uid: enumerator.snapshot() for uid, enumerator in self.enumerators.items()}

    def _answer_requests(self):
        requests = [r for r in self.all(msg.SplitsRequested) if r.attempt == self.attempt]
        for request in requests:
            self.reports.remove(request)
            enumerator = self.enumerators[request.uid]
            splits = tuple(enumerator.next_splits(request.subtask))
            vertex = next(v for v in self.program.plan.vertices if v.operators[0].uid == request.uid)
            self.slots[vertex.slot(request.subtask)].deliver(
                msg.AssignSplits(
                    attempt=self.attempt,
                    uid=request.uid,
                    subtask=request.subtask,
                    splits=splits,
                    no_more=enumerator.exhausted and not splits,
                )
            )
        return bool(requests)


def restore_of(acks):
    """Return what every subtask reads back when parallelism does not change."""
    return {
        place: {
            operator.uid: msg.OperatorRestore(
                directory="memory://snapshot",
                states=operator.states,
                keyed=operator.keyed,
                operator=tuple(
                    msg.OperatorStateSlice(handle=handle, start=0, stop=handle.element_count)
                    for handle in operator.operator
                ),
            )
            for operator in snapshot.operators
        }
        for place, snapshot in acks.items()
    }


def counted(*words):
    """Return what `Count` emits for these words, when one letter stands for one word."""
    seen: dict[str, int] = {}
    out = []
    for word in words:
        seen[word[0]] = seen.get(word[0], 0) + 1
        out.append((word, seen[word[0]]))
    return out
