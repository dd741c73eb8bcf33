"""Does a noisy series fall? The statistics behind the loss rules."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MIN_VALUES = 6
"""Fewer values can't reach the significance level: five in perfect order are seen by chance 1 time in 120."""

ALPHA = 0.01
"""Share of series without a fall that are called falling."""

STRICT_ALPHA = 0.001
"""Share of falling series that are called level or rising: an alarm, so it has to be rarer."""

MAX_HEAD = 5
MIN_CHANGE = 0.02
"""A fall smaller than 2 % counts as none when it comes to showing that a series does not fall."""


@dataclass(frozen=True, slots=True)
class Trend:
    """Whether a series falls, and by how much.

    Attributes:
        start: Median of the first values.
        end: Median of the last values.
        p_fall: Probability of evidence this strong for a fall in a series without any.
        p_rise: The same for a rise.
        max_drop: Upper bound, with 99.9 % confidence, of the drop from the first third to the last, in units of
            the start's size: a larger one would have been seen through the noise.
    """

    start: float
    end: float
    p_fall: float
    p_rise: float
    max_drop: float

    @property
    def is_falling(self) -> bool:
        """False: not shown to fall, which is not the same as shown not to; see `is_level`."""
        return self.p_fall <= ALPHA and self.end < self.start

    def is_rising(self, min_change: float = MIN_CHANGE) -> bool:
        """Shown to rise, and by more than `min_change` of its start."""
        return self.p_rise <= STRICT_ALPHA and -self.drop > min_change

    def is_level(self, min_change: float = MIN_CHANGE) -> bool:
        """Shown not to fall: even a fall of `min_change` would have been seen. False for short or noisy series."""
        return not self.is_falling and self.max_drop < min_change

    @property
    def drop(self) -> float:
        """The fall from start to end in units of the start's size; negative when it rose."""
        return (self.start - self.end) / (abs(self.start) or 1.0)


def measure_trend(values: Sequence[float]) -> Trend:
    """Tests whether a series falls, robustly to noise and to a fall that is over after a few steps.

    Two one-sided rank tests share the significance level: Kendall's tau of the values against their order
    sees a steady fall; Mann-Whitney's U of the first values against the last half sees an early one. Both
    look at ranks only, so a single outlier decides nothing. A series that is not shown to fall is either
    shown not to (level or rising), or too short or noisy to tell.

    Args:
        values: At least `MIN_VALUES` finite numbers in order.

    Raises:
        ValueError: Too few values, or one is not finite.

    Source: Kendall (1938), Mann and Whitney (1947), Welch (1947), as in `scipy.stats`; Bonferroni's
    correction for two tests.
    """
    if len(values) < MIN_VALUES:
        raise ValueError(f"a trend needs at least {MIN_VALUES} values, got {len(values)}")
    head = max(3, min(MAX_HEAD, len(values) // 4))
    first, last = list(values[:head]), list(values[len(values) // 2 :])
    start, end = statistics.median(first), statistics.median(last[-max(head, len(values) // 5) :])
    if len(set(values)) == 1:
        return Trend(start, end, p_fall=1.0, p_rise=1.0, max_drop=0.0)
    return Trend(
        start,
        end,
        p_fall=_combine_tests(values, first, last),
        p_rise=_combine_tests([-value for value in values], [-v for v in first], [-v for v in last]),
        max_drop=_bound_drop(values) / (abs(start) or 1.0),
    )


def _combine_tests(values: Sequence[float], first: Sequence[float], last: Sequence[float]) -> float:
    from scipy import stats  # noqa: PLC0415  imported late: 400 ms

    steady = stats.kendalltau(range(len(values)), values, alternative="less").pvalue
    early = stats.mannwhitneyu(first, last, alternative="greater").pvalue
    return min(1.0, 2 * float(min(steady, early)))


def _bound_drop(values: Sequence[float]) -> float:
    """Welch's upper confidence bound for the fall of the mean from the first third to the last."""
    from scipy import stats  # noqa: PLC0415  imported late: 400 ms

    third = max(2, len(values) // 3)
    # In units of the largest, so that the squares of very large and very small losses are numbers.
    scale = max(abs(value) for value in values)
    first, last = ([value / scale for value in part] for part in (values[:third], values[-third:]))
    difference = statistics.fmean(first) - statistics.fmean(last)
    squares = [statistics.variance(part) / third for part in (first, last)]
    total = sum(squares)
    if not total:
        return scale * difference
    freedom = (third - 1) / sum((square / total) ** 2 for square in squares)
    quantile = float(stats.t.ppf(1 - STRICT_ALPHA, freedom))
    return scale * (difference + quantile * math.sqrt(total))
