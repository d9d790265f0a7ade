"""Makes the machines of a job as its configuration wants them."""

import random
from typing import assert_never

from raystream.config.options import RestartConfig
from raystream.graph.physical import PhysicalPlan
from raystream.protocol.checkpoint import CheckpointCoordinator
from raystream.protocol.checkpoint_requests import CheckpointRequests
from raystream.protocol.job import Job
from raystream.protocol.recovery import RecoveryPoint
from raystream.protocol.restart import (
    ExponentialDelay,
    FailureRate,
    FixedDelay,
    NoRestart,
    RestartStrategy,
)
from raystream.protocol.retention import Retention
from raystream.protocol.subtasks import JobShape
from raystream.runtime.coordinator_services import CoordinatorServices


def make_job(services: CoordinatorServices) -> Job:
    """Return the machine that decides about attempts and the end of a job."""
    plan, config = services.submission.plan, services.submission.config
    return Job(
        shape=shape_of(plan, config.parallelism),
        strategy=_restart_strategy(config.restart, services.rng),
        cancellation_timeout_ms=config.cancellation_timeout_ms,
    )


def shape_of(plan: PhysicalPlan, parallelism: int) -> JobShape:
    """Return how large a plan is that was made for a parallelism."""
    subtasks = frozenset((vertex.id, subtask) for vertex, subtask in plan.subtasks())
    return JobShape(parallelism=parallelism, slots=plan.slots, subtasks=subtasks)


def make_checkpoint_coordinator(services: CoordinatorServices) -> CheckpointCoordinator:
    """Return the machine that decides about checkpoints and savepoints."""
    plan = services.submission.plan
    options = services.submission.config.checkpointing
    return CheckpointCoordinator(
        subtasks=[(vertex.id, subtask) for vertex, subtask in plan.subtasks()],
        requests=CheckpointRequests(
            options.interval_ms,
            min_pause_ms=options.min_pause_ms,
            max_concurrent=options.max_concurrent,
            rng=services.rng,
        ),
        recovery=RecoveryPoint(
            Retention(
                options.num_retained, delete_on_cancellation=options.retention == "delete-on-cancellation"
            ),
            older_allowed=services.submission.config.recovery.allow_older or not plan.transactional,
        ),
        timeout_ms=options.timeout_ms,
        tolerable_failures=options.tolerable_failures,
    )


def _restart_strategy(config: RestartConfig, rng: random.Random) -> RestartStrategy:
    match config.type:
        case "none":
            return NoRestart()
        case "fixed-delay":
            return FixedDelay(config.attempts, config.delay_ms)
        case "failure-rate":
            return FailureRate(
                config.failures_per_interval_max,
                interval_ms=config.failure_interval_ms,
                delay_ms=config.failure_rate_delay_ms,
            )
        case "exponential-delay":
            return ExponentialDelay(
                config.initial_backoff_ms,
                config.max_backoff_ms,
                multiplier=config.multiplier,
                reset_ms=config.reset_threshold_ms,
                jitter=config.jitter,
                rng=rng,
                attempts=config.attempts_before_reset,
            )
        case _:
            assert_never(config.type)
