"""`raystream run -s` tells what a job goes on from."""

from dataclasses import replace

import pytest

from tests.unit.cli.fakes import FINISHED, RUNNING, FakeJob


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ("file:///x/chk-7", "'numbers' goes on from file:///x/chk-7"),
        (None, "'numbers' starts anew: no snapshot of it is in file:///x"),
    ],
)
def test_what_latest_has_come_to_is_told_once(raystream, script, jobs_do, found, told):
    jobs_do(FakeJob([replace(RUNNING, started_from=found), replace(FINISHED, started_from=found)]))

    outcome = raystream("run", "-s", "latest", "-D", "execution.checkpointing.dir=file:///x", script())

    assert outcome.err.splitlines()[1] == told
    assert outcome.err.count(told) == 1
