"""The log is one sequence of whole entries, and only the newest attempt can add to it."""

import pytest

from raystream.errors import FencedError, ProtocolError, StateCorruptError, StateRestoreError, StorageError
from raystream.ids import JobStatus
from raystream.storage.envelope import seal
from raystream.storage.filesystem import MissingFileError, join_url
from raystream.storage.job_log import FORMAT_VERSION, DurableJobLog, StaleLogError, VolatileJobLog
from raystream.storage.layout import JobLayout
from raystream.storage.log_entries import (
    AttemptStarted,
    CancelAccepted,
    CheckpointCompletedEntry,
    MasterStarted,
    NewestId,
    SavepointCompleted,
    StopAccepted,
    Terminal,
)
from tests.unit.storage.contract import BreakingFileSystem, UnreachableFileSystem
from tests.unit.storage.sample import JOB, OTHER_JOB


def completed(checkpoint_id, attempt=1):
    return CheckpointCompletedEntry(
        checkpoint_id=checkpoint_id, directory=f"file:///x/chk-{checkpoint_id}", attempt=attempt
    )


FIRST, SECOND = AttemptStarted(attempt=1), AttemptStarted(attempt=2)


@pytest.fixture
def layout(base):
    return JobLayout(base, JOB)


@pytest.fixture
def open_log(fs, layout):
    """Returns a new writer that has read the log."""

    def opened(over=None):
        log = DurableJobLog(over or fs, layout)
        log.read()
        return log

    return opened


@pytest.fixture(params=["durable", "volatile"])
def any_log(request, open_log):
    return open_log() if request.param == "durable" else VolatileJobLog()


def test_entries_come_back_in_order(any_log):
    entries = [
        AttemptStarted(attempt=1, restored_checkpoint=7, restored_path="file:///x/chk-7"),
        completed(8),
        SavepointCompleted(checkpoint_id=9, directory="file:///s", attempt=1, stop=True),
        NewestId(newest_checkpoint=500),
        StopAccepted(request_id="r1"),
        CancelAccepted(request_id="r2"),
        Terminal(status=JobStatus.FAILED, error="user code raised"),
    ]
    for entry in entries:
        any_log.append(entry)

    assert any_log.read() == entries


def test_only_entries_of_checkpoints_are_pruned(any_log):
    savepoint = SavepointCompleted(checkpoint_id=3, directory="file:///s", attempt=1)
    for entry in (FIRST, completed(1), completed(2), savepoint, SECOND, completed(4, 2), completed(5, 2)):
        any_log.append(entry)
    any_log.prune_checkpoints(keep={5})

    assert any_log.read() == [FIRST, savepoint, SECOND, completed(5, 2)]


def test_another_writer_goes_on_behind_the_last_entry(open_log):
    for number in range(1, 4):
        log = open_log()
        log.append(AttemptStarted(attempt=number))
        log.append(completed(number, number))
        log.prune_checkpoints(keep={number})

    assert open_log().read() == [FIRST, SECOND, AttemptStarted(attempt=3), completed(3, 3)]


def test_the_newest_entry_is_never_pruned(open_log, fs, layout):
    log = open_log()
    log.append(FIRST)
    log.append(completed(1))
    log.prune_checkpoints(keep=set())

    assert log.read() == [FIRST, completed(1)]


def test_a_log_must_be_read_before_it_is_written(fs, layout):
    with pytest.raises(ProtocolError, match="before it was read"):
        DurableJobLog(fs, layout).append(FIRST)


def test_a_replaced_attempt_can_never_complete_a_checkpoint(open_log):
    old, new = open_log(), None
    old.append(FIRST)
    old.append(completed(1))
    new = open_log()
    new.append(SECOND)

    with pytest.raises(FencedError) as caught:
        old.append(completed(2))
    assert caught.value.context["newer_attempt"] == 2
    with pytest.raises(FencedError):
        old.read()
    assert new.read() == [FIRST, completed(1), SECOND]


def test_first_attempt_under_a_later_master_is_not_taken_for_one_before_it(open_log):
    slept = open_log()
    slept.append(MasterStarted(attempt=2))
    log = open_log()
    log.append(MasterStarted(attempt=3))
    log.append(FIRST)

    assert log.read()[-1] == FIRST
    log.append(completed(1))
    with pytest.raises(FencedError):
        slept.append(FIRST)
    with pytest.raises(FencedError):
        slept.read()


def test_a_replaced_attempt_stays_out_after_its_successor_has_pruned(open_log):
    old = open_log()
    old.append(FIRST)
    new = open_log()
    new.append(SECOND)
    for checkpoint_id in range(1, 9):
        new.append(completed(checkpoint_id, 2))
        new.prune_checkpoints(keep={checkpoint_id})

    with pytest.raises(FencedError):
        old.append(completed(1))


def test_of_two_successors_one_starts_the_attempt(open_log):
    open_log().append(FIRST)
    one, other = open_log(), open_log()
    one.append(SECOND)

    with pytest.raises(FencedError):
        other.append(SECOND)


def test_a_successor_that_missed_an_entry_must_decide_again(open_log):
    old = open_log()
    old.append(FIRST)
    new = open_log()
    old.append(completed(1))

    with pytest.raises(StaleLogError, match="was not read"):
        new.append(SECOND)
    with pytest.raises(ProtocolError, match="before it was read"):
        new.append(SECOND)
    assert new.read() == [FIRST, completed(1)]
    new.append(AttemptStarted(attempt=2, restored_checkpoint=1))
    with pytest.raises(FencedError):
        old.append(completed(2))


def test_a_successor_that_took_a_pruned_number_must_decide_again(open_log):
    """Its entry would stand before newer ones, where the older attempt never meets it."""
    old = open_log()
    old.append(FIRST)
    new = open_log()
    old.append(completed(1))
    old.append(completed(2))
    old.prune_checkpoints(keep={2})

    with pytest.raises(StaleLogError, match="was not read"):
        new.append(SECOND)
    assert new.read()[-1] == completed(2)
    new.append(AttemptStarted(attempt=3, restored_checkpoint=2))
    with pytest.raises(FencedError):
        old.append(completed(3))


def test_an_answer_that_was_lost_is_asked_for_again(open_log, fs):
    log = open_log(BreakingFileSystem(fs, break_at=0, error=StorageError, done=True))
    log.append(FIRST)
    log.append(completed(1))

    assert open_log().read() == [FIRST, completed(1)]


def test_a_failure_that_passes_is_not_noticed(open_log, fs):
    log = open_log(BreakingFileSystem(fs, break_at=0, error=StorageError))
    log.append(FIRST)

    assert open_log().read() == [FIRST]


def test_an_append_that_failed_for_sure_can_be_repeated(open_log, fs, monkeypatch):
    log = open_log()

    def full(url, data):
        raise StorageError("could not create file", path=url)

    with monkeypatch.context() as patch:
        patch.setattr(fs, "create_exclusive", full)
        with pytest.raises(StorageError, match="could not create file") as caught:
            log.append(FIRST)
    assert type(caught.value) is StorageError
    log.append(FIRST)
    assert log.read() == [FIRST]


def test_an_append_whose_outcome_is_not_known_makes_the_log_stale(layout, fs):
    log = DurableJobLog(fs, layout)
    log.read()
    log._fs = UnreachableFileSystem()

    with pytest.raises(StaleLogError, match="outcome of an append"):
        log.append(FIRST)
    log._fs = fs
    with pytest.raises(ProtocolError, match="before it was read"):
        log.append(FIRST)


@pytest.mark.parametrize("error", [StorageError("store does not answer"), MissingFileError("file is gone")])
def test_a_number_that_is_taken_by_what_cannot_be_read_makes_the_log_stale(open_log, fs, monkeypatch, error):
    old = open_log()
    old.append(FIRST)
    new = open_log()
    old.append(completed(1))
    read, reads = fs.read, []

    def failing_at_the_second_look(url):
        reads.append(url)
        if len(reads) == 2:
            raise error
        return read(url)

    with monkeypatch.context() as patch:
        patch.setattr(fs, "read", failing_at_the_second_look)
        with pytest.raises(StaleLogError, match="could not be read"):
            new.append(SECOND)
    with pytest.raises(ProtocolError, match="before it was read"):
        new.append(SECOND)
    assert new.read() == [FIRST, completed(1)]


def test_a_damaged_entry_at_the_number_that_is_needed_makes_the_log_stale(open_log, fs, layout):
    log = open_log()
    fs.write(layout.log_entry(1), b"damaged")

    with pytest.raises(StaleLogError, match="could not be read"):
        log.append(FIRST)


def test_a_damaged_entry_is_named(open_log, fs, layout):
    open_log().append(FIRST)
    fs.write(layout.log_entry(1), fs.read(layout.log_entry(1))[:-1])

    with pytest.raises(StateCorruptError) as caught:
        open_log()
    assert caught.value.context["path"] == layout.log_entry(1)


def test_an_entry_of_a_newer_format_is_refused(open_log, fs, layout):
    fs.write(layout.log_entry(1), seal("log-entry", FORMAT_VERSION + 1, b"{}"))

    with pytest.raises(StateRestoreError, match="newer format"):
        open_log()


def test_entries_that_were_swapped_are_named(open_log, fs, layout):
    log = open_log()
    log.append(FIRST)
    log.append(completed(1))
    contents = [fs.read(layout.log_entry(number)) for number in (1, 2)]
    fs.write(layout.log_entry(1), contents[1])
    fs.write(layout.log_entry(2), contents[0])

    with pytest.raises(StateCorruptError, match="not the one that its name says") as caught:
        open_log()
    assert caught.value.context["path"] in (layout.log_entry(1), layout.log_entry(2))


def test_entry_of_another_job_is_named(open_log, fs, base, layout):
    open_log().append(FIRST)
    other = JobLayout(base, OTHER_JOB)
    fs.write(other.log_entry(1), fs.read(layout.log_entry(1)))

    with pytest.raises(StateCorruptError, match="not the one that its name says") as caught:
        DurableJobLog(fs, other).read()
    assert caught.value.context["path"] == other.log_entry(1)
    assert caught.value.context["job"] == JOB


def test_entry_of_the_format_before_did_not_say_which_one_it_is_and_is_read(open_log, fs, layout):
    record = b'{"writer":"w","attempt":1,"type":"attempt-started","entry":{"attempt":1}}'
    fs.write(layout.log_entry(1), seal("log-entry", 1, record))
    log = open_log()
    log.append(SECOND)

    assert open_log().read() == [FIRST, SECOND]


@pytest.mark.parametrize(
    "record",
    [
        b'{"writer":"w","attempt":1,"type":"strange","entry":{}}',
        b'{"writer":"w","attempt":1,"type":"attempt-started","entry":{}}',
        b'{"writer":"w"}',
    ],
)
def test_an_entry_that_breaks_the_format_is_corrupt(open_log, fs, layout, record):
    fs.write(layout.log_entry(1), seal("log-entry", 1, record))

    with pytest.raises(StateCorruptError, match="log entry"):
        open_log()


def test_files_of_others_in_the_log_directory_are_passed_over(open_log, fs, layout):
    fs.write(join_url(layout.log_dir, ".tmp-5eed"), b"half")
    log = open_log()
    log.append(FIRST)

    assert log.read() == [FIRST]


def test_writer_that_found_no_log_is_fenced_whatever_the_number_of_its_attempt(open_log):
    slept, other = open_log(), open_log()
    for log in (slept, other):
        log.read()
    other.append(FIRST)
    other.append(Terminal(status=JobStatus.FINISHED))

    with pytest.raises(StaleLogError):
        slept.append(AttemptStarted(attempt=3, job_name="job", started_ms=3))
    with pytest.raises(FencedError):
        slept.read()
