"""Which steps of a run count: those after its warm-up, if the rest is steady."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

SETTLED = 5
"""Warm-up is over when the median of so many steps in a row is that of the later ones, within their noise."""
NOISE = 2 * 1.4826
"""Two standard deviations, in median absolute deviations of a normal sample."""
MIN_NOISE = 0.02
WARM_UP_SHARE = 0.2
"""The least share of the steps that counts as warm-up, where one process is looked at alone."""
MIN_STEADY_STEPS = 3
MIN_DRIFT = 0.25
"""A step time that moves by less along the run is called steady, however surely it moves."""
MIN_JUDGED_STEPS = 12
"""Fewer steps don't tell a drift from noise."""
DRIFT_NOISE = 4.0
"""How many standard errors of the difference of two medians a drift is beyond."""
MEDIAN_ERROR = 1.4826 * 1.2533
"""Standard error of a median of n normal values, in median absolute deviations over the root of n."""


@dataclass(frozen=True, slots=True)
class SteadySteps:
    """The step times of a run after its warm-up.

    Attributes:
        times_s: Seconds of each step that counts.
        num_warm_up: Timed steps left out before them.
        drift: By how much the median of their second half is larger than that of the first, as a share.
        is_steady: Whether that is no more than noise, or too little to matter.
    """

    times_s: Sequence[float]
    num_warm_up: int
    drift: float
    is_steady: bool

    @property
    def step_time_s(self) -> float | None:
        """Median seconds per step; None where fewer than three count."""
        return statistics.median(self.times_s) if len(self.times_s) >= MIN_STEADY_STEPS else None


def find_steady_steps(times_s: Sequence[float]) -> SteadySteps:
    """Leaves out the warm-up of a run: as long as steps are slower than the later ones, a fifth of them at least.

    What never settles is taken from its middle on, and its drift tells.
    """
    least = max(1, round(len(times_s) * WARM_UP_SHARE))
    most = max(least, min(len(times_s) // 2, len(times_s) - MIN_STEADY_STEPS))
    num_warm_up = min(max(least, find_warm_up(times_s)), most)
    kept = times_s[num_warm_up:]
    if len(kept) < MIN_JUDGED_STEPS:
        return SteadySteps(kept, num_warm_up, drift=0.0, is_steady=True)
    halves = kept[: len(kept) // 2], kept[len(kept) // 2 :]
    before_s, after_s = (statistics.median(half) for half in halves)
    errors = [
        MEDIAN_ERROR * statistics.median(abs(time_s - middle) for time_s in half) / len(half) ** 0.5
        for half, middle in zip(halves, (before_s, after_s), strict=True)
    ]
    difference = after_s - before_s
    is_beyond_noise = abs(difference) > DRIFT_NOISE * sum(error**2 for error in errors) ** 0.5
    is_steady = not is_beyond_noise or abs(difference) <= MIN_DRIFT * before_s
    return SteadySteps(kept, num_warm_up, difference / before_s if before_s else 0.0, is_steady)


def find_warm_up(times_s: Sequence[float]) -> int:
    """How many steps at the start are slower than the later ones.

    It is over where the median of five steps in a row is that of the second half, within two of its standard
    deviations, or 2 %. A series that never settles is all warm-up; one that grows has none.
    """
    later = times_s[len(times_s) // 2 :]
    if not later:
        return 0
    middle = statistics.median(later)
    spread = statistics.median(abs(time_s - middle) for time_s in later)
    bound = middle + max(NOISE * spread, MIN_NOISE * middle)
    for start in range(len(times_s) - SETTLED + 1):
        window = times_s[start : start + SETTLED]
        if statistics.median(window) <= bound:
            # Of the five, those before the first that is settled itself are still warm-up.
            return start + next(number for number, time_s in enumerate(window) if time_s <= bound)
    return len(times_s)
