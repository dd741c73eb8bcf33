"""Does a noisy series fall? The statistics behind the loss rules."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MIN_VALUES = 6
"""Fewer values can't reach the significance level: five in perfect order are seen by chance 1 time in 120."""

ALPHA = 0.01
MAX_HEAD = 5


@dataclass(frozen=True, slots=True)
class Trend:
    """Whether a series falls, and by how much.

    Attributes:
        start: Median of the first values.
        end: Median of the last values.
        p_value: Probability of evidence this strong for a fall in a series without any.
    """

    start: float
    end: float
    p_value: float

    @property
    def is_falling(self) -> bool:
        """False: not shown to fall, which is not the same as shown not to."""
        return self.p_value <= ALPHA and self.end < self.start

    @property
    def drop(self) -> float:
        """The fall from start to end in units of the start's size; negative when it rose."""
        return (self.start - self.end) / (abs(self.start) or 1.0)


def measure_trend(values: Sequence[float]) -> Trend:
    """Tests whether a series falls, robustly to noise and to a fall that is over after a few steps.

    Two one-sided rank tests share the significance level: Kendall's tau of the values against their order
    sees a steady fall; Mann-Whitney's U of the first values against the last half sees an early one. Both
    look at ranks only, so a single outlier decides nothing.

    Args:
        values: At least `MIN_VALUES` finite numbers in order.

    Raises:
        ValueError: Too few values, or one is not finite.

    Source: Kendall (1938), Mann and Whitney (1947), as in `scipy.stats`; Bonferroni's correction for two.
    """
    from scipy import stats  # noqa: PLC0415  imported late: 400 ms

    if len(values) < MIN_VALUES:
        raise ValueError(f"a trend needs at least {MIN_VALUES} values, got {len(values)}")
    head = max(3, min(MAX_HEAD, len(values) // 4))
    first, last = list(values[:head]), list(values[len(values) // 2 :])
    start, end = statistics.median(first), statistics.median(last[-max(head, len(values) // 5) :])
    if len(set(values)) == 1:
        return Trend(start, end, p_value=1.0)
    steady = stats.kendalltau(range(len(values)), values, alternative="less").pvalue
    early = stats.mannwhitneyu(first, last, alternative="greater").pvalue
    return Trend(start, end, p_value=min(1.0, 2 * float(min(steady, early))))
