"""A failed job runs again as often as its configured strategy lets it."""

import pytest

from raystream.runtime import messages as msg
from tests.unit.runtime.coordinator_world import INTERVAL_MS, World, chk, running
from tests.unit.runtime.job_lives import next_life


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"restart_strategy__type": "failure-rate"}, "more than 1 failures within 60000 ms"),
        (
            {
                "restart_strategy__type": "exponential-delay",
                "restart_strategy__exponential_delay__attempts_before_reset_backoff": "1",
            },
            "all 1 restarts of restart-strategy.exponential-delay",
        ),
    ],
)
def test_job_that_fails_too_often_for_its_strategy_says_which_option_gave_up(options, cause):
    world = running(**options)

    world.fail().run_for(2_000)
    assert (world.status, world.view.attempt) == ("RUNNING", 2)
    world.fail()

    assert world.status == "FAILED"
    assert cause in world.view.gave_up


def test_time_until_the_next_attempt_is_shown(tmp_path):
    world = running(tmp_path, restart_strategy__fixed_delay__delay="5s").run_for(INTERVAL_MS)
    assert world.view.restart_in_ms == 0

    world.fail().run_for(2_000)
    assert (world.status, world.view.attempt, world.view.restart_in_ms) == ("RESTARTING", 1, 3_000)
    world.run_for(3_000)
    assert (world.status, world.view.attempt, world.view.restart_in_ms) == ("RUNNING", 2, 0)


@pytest.mark.parametrize("fail", [World.fail, lambda world: world.lose(0)])
def test_two_restarts_with_no_checkpoint_between_go_back_to_the_same_one(tmp_path, fail):
    world = running(tmp_path).run_for(INTERVAL_MS)
    for attempt in (2, 3):
        world.restored.clear()
        fail(world)
        world.restart()

        assert (world.status, world.view.attempt) == ("RUNNING", attempt)
        (restore,) = world.restored[0][1, 0].values()
        assert restore.directory == f"file://{chk(tmp_path, 1)}"
        assert world.log_entries[-1].restored_checkpoint == 1

    world.run_for(INTERVAL_MS)
    assert world.completed[-1] > 1, "ids are not used again"
    assert [path.name for path in tmp_path.glob("*/chk-*")] == [f"chk-{world.completed[-1]}"]


def test_restarts_before_the_first_checkpoint_all_begin_with_nothing(tmp_path):
    world = running(tmp_path)
    for attempt in (2, 3):
        world.fail().restart()

        assert (world.status, world.view.attempt) == ("RUNNING", attempt)
        assert world.restored == {0: {}, 1: {}}

    assert [state for _, state in world.source.made] == [None] * 3


def rescale(world):
    world.rescale(1)


def drain_in_vain(world):
    world.silent = {msg.TriggerCheckpoint}
    world.stop(drain=True)
    world.decline(world.commands(msg.TriggerCheckpoint)[-1].checkpoint_id, 1, 0)
    world.silent = set()
    world.settle()


@pytest.mark.parametrize("begin_anew", [rescale, drain_in_vain])
def test_attempt_that_no_failure_has_led_to_is_no_restart_under_the_next_job_master_either(
    tmp_path, begin_anew
):
    once = {"restart_strategy__fixed_delay__attempts": 1, "parallelism__default": 2}
    directory = tmp_path / "checkpoints"
    world = World(directory, packed=True, savepoints=tmp_path, **once).start().run_for(INTERVAL_MS)
    begin_anew(world)
    assert (world.status, world.view.attempt, world.view.restarts) == ("RUNNING", 2, 0)

    world = next_life(directory, at_ms=60_000, packed=world.program, **once)
    assert (world.status, world.view.attempt, world.view.restarts) == ("RUNNING", 3, 1)
    world = next_life(directory, at_ms=120_000, packed=world.program, **once)
    assert (world.status, world.view.restarts) == ("FAILED", 1)
