"""Runs a job in a simulated cluster, seed by seed, and checks that its output is there exactly once.

    def hits(env):
        return env.from_source(source, uid="source").key_by(path).process(CountHits(), uid="count")

    simulate(hits, seeds=range(300)).check()

The runtime of raystream and its state machines run unchanged; clock, connections, storage,
blocking work, processes and the order of everything are simulated.  Nothing is random but by
the seed, so a run that fails is repeated exactly by simulating its seed again.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from raystream.testing.drawn_faults import Faults
from raystream.testing.faults import Fault
from raystream.testing.simulation_job import STEPS_MAX, Job, SeedResult, Simulation
from raystream.testing.simulation_run import Delivery
from raystream.testing.simulation_world import SimulationError

_FAILURES_SHOWN_MAX = 20


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
    repeat: Callable[[int, Sequence[Fault] | None], str]
    """Says how to simulate a seed again, with the faults that are drawn for it or with others."""
    shrink: Callable[[SeedResult], tuple[Fault, ...]]
    """Finds the shortest list of faults with which a seed still fails."""

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
            SimulationError: something did; with the trace of the first seed, what repeats it, and the
                shortest list of faults with which it fails.
        """
        if self.ok:
            return
        first = self.failed[0]
        shortest = self.shrink(first)
        raise SimulationError(
            "\n".join(
                [
                    f"{self.name}: {len(self.failed)} of {len(self.rows)} seeds failed",
                    *(f"  seed {row.seed}: {row.problems[0]}" for row in self.failed[:_FAILURES_SHOWN_MAX]),
                    f"the last events of seed {first.seed}:",
                    *first.trace,
                    *(f"  happened: {fault}" for fault in first.faults),
                    *(f"  problem: {problem}" for problem in first.problems),
                    "it fails as well with these faults alone:",
                    *(f"  {fault}" for fault in shortest),
                ]
            ),
            hint=f"repeat it with: {self.repeat(first.seed, None)}\n"
            f"or, shorter: {self.repeat(first.seed, shortest)}",
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
    delivery: Delivery | None = None,
    parallelism: int = 2,
    steps_max: int = STEPS_MAX,
    **options: object,
) -> SimulationReport:
    """Run a job once for every seed, with faults, and check what comes of it.

    The output must not depend on the order in which records of different splits arrive: it differs.

    Args:
        job: builds the job and returns the stream whose records are checked; None checks only that
            it runs to its end.  The job's sources are bounded.
        seeds: one run for each.
        faults: what is drawn for each seed, or the faults themselves; `Faults()` by default.
        expected: the output, in any order; by default that of a run without faults.
        delivery: how the output may differ from it; by default as the mode of checkpoints promises.
        parallelism: of the job's first start.
        steps_max: rounds of all loops together after which a run counts as endless.
        options: configuration keys, as for `StreamEnvironment`.

    Raises:
        SimulationError: the job does not run even without faults.
        ConfigError, GraphError: as of `Simulation`.
    """
    simulation = Simulation(
        job, expected=expected, delivery=delivery, parallelism=parallelism, steps_max=steps_max, **options
    )
    settings: dict[str, object] = {} if delivery is None else {"delivery": delivery}
    settings |= {"parallelism": parallelism, **options}
    drawn = Faults() if faults is None else faults

    def run(seed: int) -> SeedResult:
        return simulation.run(seed, simulation.drawn(seed, drawn) if isinstance(drawn, Faults) else drawn)

    def repeat(seed: int, others: Sequence[Fault] | None) -> str:
        return _command(job, seed, faults if others is None else tuple(others), settings)

    return SimulationReport(
        name=simulation.name,
        reference=simulation.reference,
        rows=tuple(map(run, seeds)),
        repeat=repeat,
        shrink=simulation.shrink,
    )


def _command(
    job: Job, seed: int, faults: Faults | Sequence[Fault] | None, settings: dict[str, object]
) -> str:
    """Return what simulates a seed again."""
    module, name = job.__module__, job.__qualname__
    arguments = [f"seeds=[{seed}]"]
    arguments += [f"faults={faults!r}"] if faults is not None else []
    arguments += [f"{key}={value!r}" for key, value in settings.items()]
    call = f"simulate({name}, {', '.join(arguments)}).check()"
    if module == "__main__" or not name.isidentifier():
        return call  # Nobody else can import the function.
    imports = f"from {module} import {name}; from raystream.testing.faults import *"
    imports += "; from raystream.testing import Delivery, Faults, simulate"
    return f'python -c "{imports}; {call}"'
