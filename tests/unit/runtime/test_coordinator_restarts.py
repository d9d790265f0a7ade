"""A failed job runs again as often as its configured strategy lets it."""

import pytest

from tests.unit.runtime.coordinator_world import running


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
