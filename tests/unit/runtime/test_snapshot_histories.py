"""Whatever happens to snapshots in whatever order: no needed file goes, and the others go in the end."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from raystream.api.runner import SavepointRequest
from raystream.errors import CheckpointError
from raystream.handles import SavepointFormat
from raystream.ids import Attempt
from raystream.runtime import messages as msg
from raystream.storage.stores import open_file_system
from raystream.testing.simulation_storage import SimulatedFileSystem
from tests.memory import MEMORY
from tests.unit.runtime.coordinator_world import INTERVAL_MS
from tests.unit.runtime.snapshot_histories import History

REFUSED = [*("delete_file", "delete_dir") * 2, "write", "create_exclusive", "list_dir"]
WORK = ("append", "write_metadata", "sweep", "delete", "delete_files", "prune_checkpoints")


class Nobody:
    def storage_called(self, call):
        pass

    def storage_done(self, call):
        pass


runs = precondition(lambda self: self.history.job is not None)


class SnapshotHistories(RuleBasedStateMachine):
    """In memory."""

    def __init__(self):
        super().__init__()
        self.scratch = Path(tempfile.mkdtemp(prefix="rs-histories-", dir=MEMORY))
        self.history = History(*self.store(), self.scratch / "local")

    def store(self):
        (self.scratch / "local").mkdir()
        return SimulatedFileSystem(Nobody()), "memory://history"

    def teardown(self):
        try:
            if self.history.job is not None:
                self.settle_down()
        finally:
            shutil.rmtree(self.scratch)

    @property
    def job(self):
        return self.history.job

    # ---- the job goes on ----------------------------------------------------------

    @runs
    @rule(ms=st.sampled_from([10, INTERVAL_MS, INTERVAL_MS, INTERVAL_MS]))
    def time_passes(self, ms):
        self.job.run_for(ms)

    @runs
    @rule(data=st.data(), count=st.integers(1, 4))
    def snapshots_are_stored(self, data, count):
        for _ in range(min(count, len(self.job.uploads))):
            self.job.do_upload(data.draw(st.integers(0, len(self.job.uploads) - 1)))

    @runs
    @rule()
    def checkpoint_completes(self):
        self.job.run_for(INTERVAL_MS)
        while self.job.uploads:
            self.job.do_upload(0)

    @runs
    @rule(count=st.integers(1, 4))
    def slots_hear_of_completions(self, count):
        self.job.hear(count)

    @runs
    @rule(slot=st.integers(0, 2), merged=st.integers(0, 3))
    def state_changes(self, slot, merged):
        process = self.job.processes.get(slot)
        if process is not None and process.store is not None:
            process.store.merge(merged) if merged else process.store.grow()

    @runs
    @rule(native=st.booleans())
    def savepoint_is_wanted(self, native):
        form = SavepointFormat.NATIVE if native else SavepointFormat.CANONICAL
        self.job.coordinator.request(SavepointRequest(f"s{next(self.job.tokens)}", None, form))
        self.job.settle()

    # ---- what goes wrong ------------------------------------------------------------

    @runs
    @rule(operation=st.sampled_from(REFUSED), effective=st.booleans())
    def store_refuses(self, operation, effective):
        self.history.flaky.refusals.append((operation, effective))

    @runs
    @rule(name=st.sampled_from(WORK))
    def work_takes_long(self, name):
        self.job.held.add(name)

    @runs
    @rule()
    def work_goes_on(self):
        self.job.release_work(*WORK)

    @runs
    @rule(slot=st.integers(0, 2))
    def attempt_fails(self, slot):
        if slot in self.job.alive:
            self.job.fail(slot)
            self.job.restart()

    @runs
    @rule(slot=st.integers(0, 2))
    def process_dies(self, slot):
        if slot in self.job.alive:
            self.job.lose(slot)
            self.job.settle()
            self.job.restart()

    @runs
    @rule(back=st.integers(0, 2))
    def checkpoint_is_declined(self, back):
        pending = [one.checkpoint_id for one in self.job.view.checkpoints if one.status == "pending"]
        if pending:
            self.job.report(
                msg.SnapshotDeclined(
                    attempt=Attempt(self.job.view.attempt),
                    checkpoint_id=pending[-1 - min(back, len(pending) - 1)],
                    vertex=1,
                    subtask=0,
                    error=CheckpointError("no"),
                )
            )
            self.job.settle()

    @runs
    @rule()
    def newest_checkpoint_is_damaged(self):
        """Its `_metadata` is gone when the job recovers, and there is an older one."""
        if self.job.status == "RUNNING" and len(self.job.retained) > 1:
            self.history.damage_newest()

    # ---- jobs end, others begin --------------------------------------------------------

    @runs
    @rule()
    def settle_down(self):
        """After some checkpoints without a fault nothing is there that nobody needs."""
        history = self.history
        history.settle_down()
        if history.job.coordinator.finished:
            self._ended()
            return
        history.take_checkpoints(3)
        history.check()
        assert history.left(history.job) == set()

    @runs
    @rule(how=st.sampled_from(["stop", "cancel", "end_input"]))
    def job_ends(self, how):
        self.history.settle_down()
        if not self.job.coordinator.finished:
            if how == "end_input":
                self.job.end_input()
            else:
                getattr(self.job, how)("end")
        self.history.settle_down()
        for _ in range(30):
            if self.job.coordinator.finished:
                break
            self.job.run_for(INTERVAL_MS)
            self.history.settle_down()
        assert self.job.coordinator.finished
        self._ended()

    def _ended(self):
        history, job = self.history, self.job
        history.check()
        history.end()
        assert history.left(job) == set()

    @runs
    @rule()
    def job_master_dies(self):
        self.history.end()

    @precondition(lambda self: self.history.job is None)
    @rule(
        data=st.data(),
        claim=st.booleans(),
        parallelism=st.integers(1, 3),
        num_retained=st.integers(1, 3),
    )
    def next_job_begins(self, data, claim, parallelism, num_retained):
        path = data.draw(st.sampled_from([None, *sorted(self.history.kept)]))
        self.history.flaky.refusals.clear()
        self.history.begin(path, claim=claim, parallelism=parallelism, num_retained=num_retained)

    @invariant()
    def nothing_is_missing(self):
        self.history.check()


class SnapshotHistoriesOnDisk(SnapshotHistories):
    """On a local disk."""

    def store(self):
        super().store()
        base = self.scratch.as_uri()
        return open_file_system(base), base


@pytest.mark.parametrize(("machine", "examples"), [(SnapshotHistories, 28), (SnapshotHistoriesOnDisk, 7)])
def test_no_history_of_snapshots_loses_or_leaves_a_file(machine, examples):
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=50,
            deadline=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
