"""Timers outlive the process that set them, and move with their keys."""

import os
import signal

from raystream import JobStatus, MapFunction
from raystream.connectors.datagen import DatagenSource
from tests.held_source import HeldSource
from tests.published import records
from tests.ray.conftest import PATIENCE_S, completed, handle_of, wait_until
from tests.timed_jobs import add_reminders, expected

COUNT = 8_000


def number(index: int) -> int:
    return index


class DieOnce(MapFunction):
    """Passes values on; kills its process when the first attempt has published something."""

    def __init__(self, directory):
        self.directory = directory

    def open(self, ctx):
        self.dies = (ctx.attempt, ctx.subtask_index) == (1, 1)

    def map(self, value):
        if self.dies and any(self.directory.glob("part-*")):
            os.kill(os.getpid(), signal.SIGKILL)
        return value


def test_every_timer_fires_once_when_a_slot_is_killed_and_three_go_on(environment, tmp_path, go):
    out, source = tmp_path / "out", HeldSource(DatagenSource(number, count=COUNT), go, records=2)
    env = environment(2)
    add_reminders(env, source, out, parse=DieOnce(out))
    client = env.submit("timers")
    handle = handle_of(client.job_id)
    wait_until(handle, lambda view: view.restarts == 1 and view.status is JobStatus.RUNNING)
    done = completed(handle.view())
    wait_until(handle, lambda view: completed(view) > done)
    savepoint = client.stop(str(tmp_path / "savepoints"))
    client.wait()
    assert 0 < len(records(out)) < 2 * COUNT

    env = environment(3, execution_state_recovery_path=savepoint)
    add_reminders(env, source, out, parse=DieOnce(tmp_path / "nowhere"))
    go.touch()
    result = env.submit("timers").wait(PATIENCE_S)

    assert result.status is JobStatus.FINISHED
    assert sorted(records(out), key=repr) == expected(range(COUNT))
