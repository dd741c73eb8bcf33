"""How the stored-baseline gate judges unchanged launches, and which slowdowns it sees.

Takes the pools of real launches under `baselines/`: each launch in turn is judged against the others of its pool,
as it is (A/A) and with its times made longer by a known share. Prints a Markdown table of verdicts.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from harness.baselines.files import read_json
from harness.baselines.pools import SCHEMA_VERSION
from harness.budgets.gate import Verdict, compare_with_pool

ROOT = Path(__file__).parents[1]
METRICS = ("step_time_s", "wall_clock_s", "peak_memory_bytes")
SLOWDOWNS = (0.0, 0.05, 0.1, 0.2, 0.4, 1.0)
TOLERANCES = (0.0, 0.05, 0.1, 0.4)


def read_pools(folder: Path) -> list[list[float]]:
    """The values of every metric of every stored pool, one list each."""
    pools = []
    for path in sorted(folder.glob("budgets/*/*.json")):
        document = read_json(path, schema_version=SCHEMA_VERSION)
        launches = document["harness"]["launches"] if document else []
        pools += [[launch["values"][metric] for launch in launches] for metric in METRICS]
    return pools


def judge_each(pools: list[list[float]], *, slowdown: float, tolerance: float) -> Counter[Verdict]:
    """The verdicts of every launch, made slower, against the other launches of its pool."""
    return Counter(
        compare_with_pool(
            [pool[index] * (1 + slowdown)],
            [*pool[:index], *pool[index + 1 :]],
            tolerance=tolerance,
            is_lower_better=True,
        ).verdict
        for pool in pools
        for index in range(len(pool))
    )


def main() -> None:
    """Prints regressed / inconclusive out of all, by slowdown and tolerance."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--baselines", type=Path, default=ROOT / "baselines")
    pools = read_pools(parser.parse_args().baselines)
    if not pools:
        sys.exit("no pools to judge.\nNext: nox -s refresh_baselines")
    num_launches = sum(map(len, pools))
    sys.stdout.write(f"Regressed / inconclusive, of {num_launches} launches in {len(pools)} pools.\n\n")
    sys.stdout.write(
        f"| slower by | {' | '.join(f'tolerance {tolerance:.0%}' for tolerance in TOLERANCES)} |\n"
    )
    sys.stdout.write(f"|{' --- |' * (len(TOLERANCES) + 1)}\n")
    for slowdown in SLOWDOWNS:
        cells = []
        for tolerance in TOLERANCES:
            verdicts = judge_each(pools, slowdown=slowdown, tolerance=tolerance)
            cells.append(f"{verdicts[Verdict.REGRESSED]} / {verdicts[Verdict.INCONCLUSIVE]}")
        sys.stdout.write(f"| {slowdown:.0%} | {' | '.join(cells)} |\n")


if __name__ == "__main__":
    main()
