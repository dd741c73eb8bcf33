"""How the stored-baseline gate judges launches of a machine that is slower at times, by how its pool came about.

    python -m benchmarks.occasions
    python -m benchmarks.occasions --draws 500

Launches made together share what the machine does meanwhile. Simulated: every occasion has a speed of its own and every
launch its noise on top, both normal on the log scale; up to eight launches of one more occasion are spent as
`harness budget` does. Judged by our gate, and as if all launches were independent; and by our gate where fixed work
beside each launch tells how fast the machine was, to within 1 %: what occasions differ by, and half of the variance of
launches. Prints Markdown tables of the share that is called regressed: unchanged, and slower by 5 and 10 %.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scipy import special

from benchmarks.gate import SEVERAL, spend
from harness.budgets.gate import ALPHA
from harness.budgets.machine import FixedWorkTimes
from harness.budgets.verdicts import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

LAUNCH_NOISE = 0.02
WORK_NOISE = 0.01
OCCASION_NOISES = (0.0, 0.005, 0.02, 0.04)
SHAPES = ((1, 20), (4, 5), (5, 8), (7, 3), (10, 4), (13, 3), (20, 1), (40, 1))
"""Occasions of a pool, and launches made on each."""
SLOWDOWNS = (0.05, 0.1)
TOLERANCE = 0.02
UNCHANGED_TIMES = 5
"""What is rare is drawn more often."""
SEED = 2027


@dataclass(frozen=True, slots=True)
class Occasion:
    """Launches that were made together: their times, and those of fixed work beside them."""

    times_s: list[float]
    works_s: list[float]


def draw(noise: random.Random, num: int, occasion_noise: float, slowdown: float = 0.0) -> Occasion:
    """Launches that are made on one occasion; half of what they differ by is the machine."""
    speed = noise.gauss(0, occasion_noise)
    half = LAUNCH_NOISE / math.sqrt(2)
    speeds = [speed + noise.gauss(0, half) for _ in range(num)]
    return Occasion(
        [math.exp(math.log1p(slowdown) + speed + noise.gauss(0, half)) for speed in speeds],
        [math.exp(speed + noise.gauss(0, WORK_NOISE)) for speed in speeds],
    )


def is_regressed(ours: Occasion, pool: list[Occasion]) -> bool:
    """By our gate."""
    times_s = [occasion.times_s for occasion in pool]
    return spend(ours.times_s, times_s, tolerance=TOLERANCE, plan=SEVERAL)[0] is Verdict.REGRESSED


def is_regressed_with_fixed_work(ours: Occasion, pool: list[Occasion]) -> bool:
    """By our gate, which knows how long fixed work took beside each launch."""
    verdict, _ = spend(
        ours.times_s,
        [occasion.times_s for occasion in pool],
        tolerance=TOLERANCE,
        plan=SEVERAL,
        works=FixedWorkTimes(ours.works_s, [occasion.works_s for occasion in pool]),
    )
    return verdict is Verdict.REGRESSED


def is_regressed_if_independent(ours: Occasion, pool: list[Occasion]) -> bool:
    """By the prediction interval of independent launches, at the looks of our gate."""
    logs = [math.log(value) for occasion in pool for value in occasion.times_s]
    quantile = float(special.stdtrit(len(logs) - 1, 1 - ALPHA / len(SEVERAL.looks)))
    for num in SEVERAL.looks:
        worse = statistics.fmean(map(math.log, ours.times_s[:num])) - statistics.fmean(logs)
        noise = quantile * statistics.stdev(logs) * math.sqrt(1 / num + 1 / len(logs))
        if worse > max(noise, math.log1p(TOLERANCE)):
            return True
    return False


def find_share(
    judge: Callable[[Occasion, list[Occasion]], bool],
    shape: tuple[int, int],
    occasion_noise: float,
    slowdown: float,
    num: int,
) -> float:
    """The share of so many drawn pools of a shape against which launches are called regressed; the same every time."""
    noise = random.Random(SEED)  # noqa: S311  draws need not be secret
    num_occasions, size = shape
    found = sum(
        judge(
            draw(noise, SEVERAL.most, occasion_noise, slowdown),
            [draw(noise, size, occasion_noise) for _ in range(num_occasions)],
        )
        for _ in range(num)
    )
    return found / num


def main() -> None:
    """Prints a table for each way to judge, a row for each pool, a column for each machine."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=1000)
    options = parser.parse_args()
    for told, judge in (
        ("our gate", is_regressed),
        ("our gate, with fixed work beside each launch", is_regressed_with_fixed_work),
        ("as if all launches were independent", is_regressed_if_independent),
    ):
        print(f"\nRegressed, {told}: unchanged / 5 % slower / 10 % slower.\n")
        print(f"| pool | {' | '.join(f'occasions differ by {noise:.1%}' for noise in OCCASION_NOISES)} |")
        print(f"|{' --- |' * (len(OCCASION_NOISES) + 1)}")
        for shape in SHAPES:
            cells = []
            for noise in OCCASION_NOISES:
                unchanged = find_share(judge, shape, noise, 0.0, UNCHANGED_TIMES * options.draws)
                slower = (find_share(judge, shape, noise, slowdown, options.draws) for slowdown in SLOWDOWNS)
                cells.append(" / ".join([f"{unchanged:.2%}", *(f"{share:.0%}" for share in slower)]))
            print(f"| {' x '.join(map(str, shape))} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
