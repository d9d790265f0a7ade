"""Runs a job in a simulated cluster, seed by seed, and checks that its output is there exactly once.

    def hits(env):
        return env.from_source(source, uid="source").key_by(path).process(CountHits(), uid="count")

    simulate(hits, seeds=range(300)).check()

The runtime of raystream and its state machines run unchanged; clock, connections, storage,
blocking work, processes and the order of everything are simulated.  Nothing is random but by
the seed, so a run that fails is repeated exactly by simulating its seed again.
"""

import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from raystream.api.environment import StreamEnvironment
from raystream.api.runner import JobHandle, Submission
from raystream.api.stream import DataStream
from raystream.config.load import load_config
from raystream.errors import ConfigError
from raystream.runtime.program import Program, pack
from raystream.testing.faults import Fault, Faults
from raystream.testing.simulation_run import PackedJob, RunResult, SimulatedRun, counted
from raystream.testing.simulation_sink import SimulatedSink
from raystream.testing.simulation_world import SimulationError

Job = Callable[[StreamEnvironment], DataStream[Any] | None]
"""Builds a job; the stream that it returns is the output that is checked."""

_OPTIONS: dict[str, object] = {
    "execution_checkpointing_interval": "30ms",
    "execution_checkpointing_timeout": "1s",
    "execution_checkpointing_dir": "memory://simulated-checkpoints",
    "execution_checkpointing_savepoint_dir": "memory://simulated-savepoints",
    "execution_checkpointing_data_inline_threshold": "100",
    "execution_checkpointing_tolerable_failed_checkpoints": 1000,
    "restart_strategy_type": "fixed-delay",
    "restart_strategy_fixed_delay_attempts": 100,
    "restart_strategy_fixed_delay_delay": "10ms",
    "task_cancellation_timeout": "2s",
}

STEPS_MAX = 50_000
"""Rounds of all loops together in one run; a small job takes about a thousand."""

_FAILURES_SHOWN_MAX = 20
_runs = itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedResult:
    """What came of one seed."""

    seed: int
    ok: bool
    problems: tuple[str, ...]
    """What went wrong."""
    faults: tuple[Fault, ...]
    """Those that happened, in order; others were planned and found nothing to happen to."""
    trace_hash: str
    """Hash of everything that happened, and when; the same for the same seed."""
    trace: tuple[str, ...]
    """The last events, for people."""
    attempts: int
    checkpoints: int
    """Id of the newest complete checkpoint."""
    virtual_ms: float
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationReport:
    """What came of a simulation.

    Attributes:
        reference: the output of a run without faults, in no order that means anything.
        rows: one for each seed.
    """

    name: str
    reference: tuple[Any, ...]
    rows: tuple[SeedResult, ...]
    repeat: str
    """How to simulate a seed again, with `{seed}` in its place."""

    @property
    def ok(self) -> bool:
        """True when nothing went wrong for any seed."""
        return all(row.ok for row in self.rows)

    @property
    def failed(self) -> tuple[SeedResult, ...]:
        """The seeds for which something went wrong."""
        return tuple(row for row in self.rows if not row.ok)

    def check(self) -> None:
        """Accept a simulation in which nothing went wrong.

        Raises:
            SimulationError: something did; with the trace of the first seed, and what repeats it.
        """
        if self.ok:
            return
        first = self.failed[0]
        raise SimulationError(
            "\n".join(
                [
                    f"{self.name}: {len(self.failed)} of {len(self.rows)} seeds failed",
                    *(f"  seed {row.seed}: {row.problems[0]}" for row in self.failed[:_FAILURES_SHOWN_MAX]),
                    f"the last events of seed {first.seed}:",
                    *first.trace,
                    *(f"  happened: {fault}" for fault in first.faults),
                    *(f"  problem: {problem}" for problem in first.problems),
                ]
            ),
            hint="repeat it with: " + self.repeat.format(seed=first.seed),
        )

    def __str__(self) -> str:
        lines = [f"{'seed':>6}  {'':4}  {'attempts':>8}  {'checkpoints':>11}  {'faults':>6}  trace"]
        lines += [
            f"{row.seed:>6}  {'ok' if row.ok else 'FAIL':4}  {row.attempts:>8}  {row.checkpoints:>11}"
            f"  {len(row.faults):>6}  {row.trace_hash}"
            for row in self.rows
        ]
        return "\n".join(lines)


def simulate(
    job: Job,
    *,
    seeds: Iterable[int],
    faults: Faults | Sequence[Fault] | None = None,
    expected: Iterable[Any] | None = None,
    parallelism: int = 2,
    steps_max: int = STEPS_MAX,
    **options: object,
) -> SimulationReport:
    """Run a job once for every seed, with faults, and check what comes of it.

    The output must not depend on the order in which records of different splits arrive, since that
    differs from run to run.

    Args:
        job: builds the job and returns the stream whose records are checked; None checks only that
            it runs to its end.  The job's sources are bounded.
        seeds: one run for each.
        faults: what is drawn for each seed, or the faults themselves; `Faults()` by default.
        expected: the output, in any order; by default that of a run without faults.
        parallelism: of the job's first start.
        steps_max: rounds of all loops together after which a run counts as endless.
        options: configuration keys, as for `StreamEnvironment`.

    Raises:
        SimulationError: the job does not run even without faults.
        ConfigError: it cannot start as configured.
        GraphError: the program does not describe a job that can run.
    """
    jobs = _Jobs(job, options, steps_max)
    slot_count = jobs.packed(parallelism).plan.slot_count
    reference: tuple[Any, ...]
    if expected is None:
        reference = _reference(jobs)
    else:
        reference = tuple(expected)
    drawn = Faults() if faults is None else faults
    rows = []
    for seed in seeds:
        planned = drawn.draw(seed, slot_count=slot_count) if isinstance(drawn, Faults) else drawn
        run = SimulatedRun(jobs.packed, parallelism, seed=seed, faults=planned, store_name=jobs.store_name)
        rows.append(_row(seed, run.execute(counted(reference))))
    return SimulationReport(
        name=jobs.name,
        reference=reference,
        rows=tuple(rows),
        repeat=_repeat(job, faults, parallelism, options),
    )


class _Jobs:
    """A job at every parallelism at which it was asked for."""

    def __init__(self, job: Job, options: dict[str, object], steps_max: int) -> None:
        self.name: str = getattr(job, "__name__", "simulated job")
        self.store_name = f"{os.getpid()}-{next(_runs)}"
        self._job = job
        self._options = {**_OPTIONS, **options}
        self._steps_max = steps_max
        self._packed: dict[int, PackedJob] = {}

    def packed(self, parallelism: int) -> PackedJob:
        """Return the job at a parallelism."""
        if parallelism not in self._packed:
            self._packed[parallelism] = self._pack(parallelism)
        return self._packed[parallelism]

    def _pack(self, parallelism: int) -> PackedJob:
        capture = _Capture()
        config = load_config(keywords={**self._options, "parallelism_default": parallelism})
        env = StreamEnvironment(config, runner=capture)
        stream = self._job(env)
        if stream is not None:
            stream.sink_to(SimulatedSink(self.store_name), name="simulated sink", uid="simulated-sink")
        env.submit(self.name)
        submission = capture.submission
        assert submission is not None, "an environment submits to its runner"
        if not all(vertex.source.bounded for vertex in submission.plan.vertices if vertex.source is not None):
            raise ConfigError("simulated job never ends", hint="give its sources an end")
        program = Program(job_name=self.name, plan=submission.plan, config=submission.config)
        return PackedJob(
            name=self.name,
            plan=submission.plan,
            config=submission.config,
            program=pack(program),
            steps_max=self._steps_max,
        )


class _Capture:
    """A runner that only keeps what it is given."""

    submission: Submission | None = None

    def submit(self, submission: Submission) -> JobHandle:
        self.submission = submission
        return submission  # type: ignore[return-value]

    def attach(self, job_id: str, *, address: str | None = None) -> JobHandle:
        raise ConfigError("simulated jobs have no clients", job_id=job_id)


def _reference(jobs: _Jobs) -> tuple[Any, ...]:
    """Return the output of a run in which nothing goes wrong."""
    run = SimulatedRun(jobs.packed, 1, seed=0, faults=(), store_name=jobs.store_name)
    result = run.execute(None)
    if result.problems:
        raise SimulationError(
            "\n".join(["job does not run even without faults", *result.trace, *result.problems])
        )
    return result.records


def _row(seed: int, result: RunResult) -> SeedResult:
    return SeedResult(
        seed=seed,
        ok=not result.problems,
        problems=result.problems,
        faults=result.faults,
        trace_hash=result.trace_hash,
        trace=result.trace,
        attempts=result.attempts,
        checkpoints=result.checkpoints,
        virtual_ms=result.virtual_ms,
        steps=result.steps,
    )


def _repeat(
    job: Job, faults: Faults | Sequence[Fault] | None, parallelism: int, options: dict[str, object]
) -> str:
    module, name = job.__module__, job.__qualname__
    arguments = ["seeds=[{seed}]"]
    arguments += [f"faults={faults!r}"] if faults is not None else []
    arguments += [f"parallelism={parallelism}", *(f"{key}={value!r}" for key, value in options.items())]
    call = f"simulate({name}, {', '.join(arguments)}).check()"
    if module == "__main__" or not name.isidentifier():
        return call  # Nobody else can import the function.
    imports = f"from {module} import {name}; from raystream.testing.faults import *"
    return f'python -c "{imports}; from raystream.testing import simulate; {call}"'
