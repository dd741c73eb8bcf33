"""How the stored-baseline gate judges unchanged launches, and which slowdowns it sees.

    python -m benchmarks.gate
    python -m benchmarks.gate --draws 400

Takes the pools of real launches under `baselines/`. First each launch in turn is judged against the others of its
pool. Then the times of launches are spent as `harness budget` does, one launch after the other until a look decides, up
to eight; the rest of the pool is what they are judged against. They are taken as they followed one another, with what
a machine drifts by, and drawn without replacement. All of them as they are (A/A), and made longer by a known share.
Prints Markdown tables of verdicts.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.baselines.files import read_json
from harness.baselines.pools import SCHEMA_VERSION
from harness.budgets.gate import compare_with_pool
from harness.budgets.judge import MAX_WAITING_SHARE
from harness.budgets.launches import LaunchPlan
from harness.budgets.verdicts import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from harness.budgets.machine import FixedWorkTimes

ROOT = Path(__file__).parents[1]
TIMES = ("step_time_s", "wall_clock_s")
METRICS = (*TIMES, "peak_memory_bytes")
SLOWDOWNS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 1.0)
TOLERANCES = (0.0, 0.02, 0.05, 0.1, 0.4)
ONE, SEVERAL = LaunchPlan(1), LaunchPlan()
SEED = 2027

Split = tuple[list[float], list[float]]
"""Launches to spend, in order, and the pool they are judged against."""


def read_pools(folder: Path, metrics: Sequence[str] = METRICS) -> list[list[float]]:
    """The values of every metric of every stored pool, one list each, in the order they were measured."""
    pools = []
    for path in sorted(folder.glob("budgets/*/*.json")):
        document = read_json(path, schema_version=SCHEMA_VERSION)
        launches = document["harness"]["launches"] if document else []
        pools += [[launch["values"][metric] for launch in launches] for metric in metrics]
    return pools


def split_successive(pools: Sequence[Sequence[float]], num: int) -> Iterator[Split]:
    """From every launch on, it and those that followed, up to `num`; at the end it goes on at the beginning."""
    for pool in pools:
        for first in range(len(pool)):
            turned = [*pool[first:], *pool[:first]]
            yield turned[:num], turned[num:]


def split_drawn(pools: Sequence[Sequence[float]], num: int, draws: int) -> Iterator[Split]:
    """`num` launches of each pool without replacement, so many times; the same in every run."""
    noise = random.Random(SEED)  # noqa: S311  draws need not be secret
    for pool in pools:
        for _ in range(draws):
            drawn = noise.sample(pool, len(pool))
            yield drawn[:num], drawn[num:]


def spend(
    launches: Sequence[float],
    pool: Sequence[Sequence[float]],
    *,
    tolerance: float,
    plan: LaunchPlan,
    waiting_shares: Sequence[float] = (),
    works: FixedWorkTimes | None = None,
) -> tuple[Verdict, int]:
    """The verdict over launches that are looked at as the plan says, and how many of them it took.

    Where `waiting_shares` tells that they waited for a processor, a regressed one is inconclusive, as in the gate.
    Where `works` tells how fast the machine was, the gate knows it.
    """
    verdict, num = Verdict.INCONCLUSIVE, 0
    for num in plan.looks:
        verdict = compare_with_pool(
            launches[:num],
            pool,
            tolerance=tolerance,
            is_lower_better=True,
            is_last=num == plan.most,
            works=None if works is None else replace(works, observed=works.observed[:num]),
        ).verdict
        is_busy = bool(waiting_shares) and statistics.median(waiting_shares[:num]) > MAX_WAITING_SHARE
        if verdict is Verdict.REGRESSED and is_busy:
            verdict = Verdict.INCONCLUSIVE
        if verdict is not Verdict.INCONCLUSIVE:
            break
    return verdict, num


def judge_all(
    splits: Sequence[Split], *, slowdown: float, tolerance: float, plan: LaunchPlan
) -> tuple[Counter[Verdict], float]:
    """The verdicts over launches made slower, and the launches that one took on average."""
    judged = [
        spend([value * (1 + slowdown) for value in launches], [pool], tolerance=tolerance, plan=plan)
        for launches, pool in splits
    ]
    return Counter(verdict for verdict, _ in judged), statistics.fmean(num for _, num in judged)


def count_one(splits: Sequence[Split], slowdown: float, tolerance: float) -> str:
    """Regressed / inconclusive, of launches judged alone."""
    verdicts, _ = judge_all(splits, slowdown=slowdown, tolerance=tolerance, plan=ONE)
    return f"{verdicts[Verdict.REGRESSED]} / {verdicts[Verdict.INCONCLUSIVE]}"


def count_several(splits: Sequence[Split], slowdown: float, tolerance: float) -> str:
    """Shares of regressed / inconclusive, and the launches spent."""
    verdicts, num = judge_all(splits, slowdown=slowdown, tolerance=tolerance, plan=SEVERAL)
    shares = [verdicts[verdict] / len(splits) for verdict in (Verdict.REGRESSED, Verdict.INCONCLUSIVE)]
    return f"{shares[0]:.1%} / {shares[1]:.1%} / {num:.1f}"


def print_table(
    title: str, splits: Sequence[Split], count: Callable[[Sequence[Split], float, float], str]
) -> None:
    """Prints a row for each slowdown, and a column for each tolerance."""
    print(f"\n{title}\n")
    print(f"| slower by | {' | '.join(f'tolerance {tolerance:.0%}' for tolerance in TOLERANCES)} |")
    print(f"|{' --- |' * (len(TOLERANCES) + 1)}")
    for slowdown in SLOWDOWNS:
        cells = [count(splits, slowdown, tolerance) for tolerance in TOLERANCES]
        print(f"| {slowdown:.0%} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Prints the tables of one launch, and of several."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--baselines", type=Path, default=ROOT / "baselines")
    parser.add_argument("--draws", type=int, default=250, help="of each pool")
    options = parser.parse_args()
    pools = read_pools(options.baselines)
    if not pools:
        sys.exit("no pools to judge.\nNext: nox -s refresh_baselines")
    ones = list(split_successive(pools, ONE.most))
    title = f"Regressed / inconclusive, of {len(ones)} launches in {len(pools)} pools."
    print_table(title, ones, count_one)
    times = read_pools(options.baselines, TIMES)
    for kind, splits in (
        ("as they followed one another", list(split_successive(times, SEVERAL.most))),
        ("drawn at random", list(split_drawn(times, SEVERAL.most, options.draws))),
    ):
        title = f"Times of up to {SEVERAL.most} launches {kind}, {len(splits)} times: regressed / inconclusive / spent."
        print_table(title, splits, count_several)


if __name__ == "__main__":
    main()
