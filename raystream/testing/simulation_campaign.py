"""Simulates many seeds of many jobs, on all cores, and tells what they have reached.

    seed -> case: a job, how it is configured, what goes wrong -> one run -> row
                                                                   rows -> report

A seed decides everything, so that it can be repeated alone, in any process.
"""

import multiprocessing
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field

from raystream.clock import SystemClock
from raystream.testing.faults import Fault
from raystream.testing.simulation_job import SeedResult, Simulation
from raystream.testing.simulation_marks import Mark

CHUNK_SEEDS = 10
"""Seeds that a process is given at a time."""

FAILURES_MAX = 20
"""Failed seeds after which no others are begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What one seed is."""

    name: str
    """For people; cases of one name are counted together."""
    simulation: Simulation
    faults: tuple[Fault, ...]

    def run(self, seed: int) -> SeedResult:
        """Run it."""
        return self.simulation.run(seed, self.faults)


CaseOf = Callable[[int], Case]
"""Returns the case of a seed; a function of a module, so that other processes find it."""


@dataclass(slots=True, kw_only=True)
class CampaignReport:
    """What came of the seeds so far."""

    seeds: int = 0
    attempts: int = 0
    seconds: float = 0.0
    failed: list[SeedResult] = field(default_factory=list)
    cases: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    """Seeds in which a fault of each kind happened."""
    marks: Counter[Mark] = field(default_factory=Counter)
    """Seeds that have reached each mark."""
    hashes: dict[int, str] = field(default_factory=dict)
    """Trace hash of each seed."""

    def add(self, case: str, row: SeedResult) -> None:
        """Count a run."""
        self.seeds += 1
        self.attempts += row.attempts
        self.cases[case] += 1
        self.hashes[row.seed] = row.trace_hash
        self.faults.update({type(fault).__name__ for fault in row.faults})
        self.marks.update(row.marks.keys())
        if not row.ok:
            self.failed.append(row)

    def missed(self, wanted: Collection[Mark]) -> list[Mark]:
        """Return the marks that no seed has reached."""
        return [mark for mark in wanted if not self.marks[mark]]

    def lines(self) -> Iterator[str]:
        """Yield the report as lines of text."""
        per_s = self.seeds / self.seconds if self.seconds else 0.0
        yield (
            f"{self.seeds} seeds in {self.seconds:.0f} s ({per_s:.1f} per second), {self.attempts} attempts, "
            f"{len(self.failed)} failed"
        )
        for title, counts in (("case", self.cases), ("fault", self.faults)):
            yield f"seeds by {title}:"
            yield from (f"{count:8}  {name}" for name, count in sorted(counts.items()))
        yield "seeds that reached each mark:"
        yield from (f"{self.marks[mark]:8}  {mark.value}" for mark in Mark)


def run_campaign(
    case_of: CaseOf,
    seeds: range,
    *,
    processes: int,
    seconds_max: float,
    progress: Callable[[CampaignReport], None],
) -> CampaignReport:
    """Run seeds until all are done, the time is over, or too many have failed.

    Args:
        case_of: says what a seed is.
        seeds: in this order, as far as the time goes.
        processes: how many run at a time.
        seconds_max: no seed is begun after this time.
        progress: told after every chunk.
    """
    report = CampaignReport()
    clock = SystemClock()
    began_ms = clock.monotonic_ms()
    chunks = (seeds[start : start + CHUNK_SEEDS] for start in range(0, len(seeds), CHUNK_SEEDS))
    # A fresh interpreter in each process: what this one has loaded or patched decides nothing.
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        running: set[Future[list[tuple[str, SeedResult]]]] = set()
        while True:
            report.seconds = (clock.monotonic_ms() - began_ms) / 1000
            goes_on = report.seconds < seconds_max and len(report.failed) < FAILURES_MAX
            while goes_on and len(running) < processes + 1 and (chunk := next(chunks, None)) is not None:
                running.add(pool.submit(_run_chunk, case_of, chunk))
            if not running:
                return report
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                for case, row in future.result():
                    report.add(case, row)
            report.seconds = (clock.monotonic_ms() - began_ms) / 1000
            progress(report)


def _run_chunk(case_of: CaseOf, seeds: Sequence[int]) -> list[tuple[str, SeedResult]]:
    """Run some seeds, in a process of the pool."""
    cases = ((seed, case_of(seed)) for seed in seeds)
    return [(case.name, case.run(seed)) for seed, case in cases]
