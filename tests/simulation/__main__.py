"""The fault simulation over all topologies, modes and faults, as many seeds as wanted.

python -m tests.simulation --seeds 10000
python -m tests.simulation --seed 1234
"""

import os
import sys
from collections.abc import Sequence

import click

from raystream.testing import faults as fault_kinds
from raystream.testing.faults import Fault
from raystream.testing.simulation_campaign import CampaignReport, Case, run_campaign
from raystream.testing.simulation_job import SeedResult
from raystream.testing.simulation_marks import Mark
from tests.simulation.cases import case_of

MARKS_SEEDS_MIN = 500
"""Seeds after which every mark must have been reached."""

SHOWN_MAX = 3
"""Failed seeds that are shrunk and shown whole."""


@click.command()
@click.option("--seeds", default=2_000, show_default=True, help="Simulate the seeds from --first on.")
@click.option("--first", default=0, show_default=True, help="The first seed.")
@click.option("--minutes", default=float("inf"), help="Begin no seed after this time.")
@click.option("--processes", default=os.cpu_count() or 1, show_default=True, help="Run so many at a time.")
@click.option("--seed", type=int, help="Repeat this seed alone, in this process.")
@click.option("--faults", "chosen", help="With --seed: these faults, as they were printed.")
def main(
    *, seeds: int, first: int, minutes: float, processes: int, seed: int | None, chosen: str | None
) -> None:
    """Simulate jobs under faults; exit with 1 when a seed has failed or a mark was missed."""
    if seed is not None:
        sys.exit(_repeat(seed, chosen))
    report = run_campaign(
        case_of,
        range(first, first + seeds),
        processes=processes,
        seconds_max=minutes * 60,
        progress=_show_progress,
    )
    sys.stderr.write("\n")
    print(*report.lines(), sep="\n")
    for row in report.failed[:SHOWN_MAX]:
        _explain(case_of(row.seed), row)
    others = [row.seed for row in report.failed[SHOWN_MAX:]]
    if others:
        print("other failed seeds:", *others)
    missed = report.missed(Mark) if report.seeds >= MARKS_SEEDS_MIN else []
    for mark in missed:
        print(f"never reached: {mark.value}")
    sys.exit(bool(report.failed or missed))


def _show_progress(report: CampaignReport) -> None:
    per_s = report.seeds / report.seconds
    failed = " ".join(str(row.seed) for row in report.failed[:SHOWN_MAX])
    sys.stderr.write(f"\r{report.seeds} seeds, {per_s:.1f} per second, {len(report.failed)} failed {failed}")
    sys.stderr.flush()


def _repeat(seed: int, chosen: str | None) -> bool:
    case = case_of(seed)
    faults = case.faults if chosen is None else eval(chosen, vars(fault_kinds))
    row = case.simulation.run(seed, faults)
    print(*row.trace, sep="\n")
    _explain(case, row)
    return not row.ok


def _explain(case: Case, row: SeedResult) -> None:
    """Show what came of a seed; of one that failed also the shortest list of faults."""
    print(f"\nseed {row.seed} ({case.name}): {'ok' if row.ok else 'failed'}, trace hash {row.trace_hash}")
    _list("happened", row.faults)
    _list("problem", row.problems)
    if not row.ok:
        shortest = case.simulation.shrink(row)
        _list("enough", shortest)
        print(f"repeat it with: python -m tests.simulation --seed {row.seed}")
        print(f'or, shorter: python -m tests.simulation --seed {row.seed} --faults "{shortest!r}"')


def _list(title: str, items: Sequence[Fault | str]) -> None:
    for item in items:
        print(f"  {title}: {item}")


if __name__ == "__main__":
    main()
