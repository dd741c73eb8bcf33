"""The machine's own speed: how far it moves a measurement, as the launches of a pool show."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class MachineRole(StrEnum):
    """What the machine's speed did to a verdict."""

    DECIDED = "decided"
    """All was judged as at equal speed."""
    EXCUSED = "excused"
    """It may explain what would be regressed or improved."""
    HID = "hid"
    """It may hide a regression."""
    TOLD = "told"
    """Nothing."""


EXCUSING_EXPONENT = 1.5
"""Trainings that wait for the memory slow down by more than fixed work does beside a busy program, by a power of its
time of 1.2 to 1.6 (docs/performance.md, "The machine's own speed"): so much of a change the machine may explain."""

MIN_LINE = 7
"""From so many occasions on, a line through them tells how a measurement goes with the machine's speed."""

RELATED_ALPHA = 0.01
"""How surely a pool has to show that fixed work and the measurement move together."""

LEAST_SPREAD = 1e-9
"""Times of fixed work that differ by less, as a share, are the same."""


@dataclass(frozen=True, slots=True)
class FixedWorkTimes:
    """How long one amount of work took beside each launch, in seconds.

    Attributes:
        observed: Beside those that are judged.
        pool: Beside those of the pool, occasion by occasion.
    """

    observed: Sequence[float]
    pool: Sequence[Sequence[float]]


@dataclass(frozen=True, slots=True)
class MachineLine:
    """How a measurement goes with the machine's speed: a line through the logs of both.

    Attributes:
        exponent: The measurement goes with this power of the time of fixed work.
        center: The log of the time of fixed work, in the middle of what the line goes through.
        spread: Sum of the squares that logs of it differ from the middle by.
        lowest: The least of these logs.
        highest: The greatest.
    """

    exponent: float
    center: float
    spread: float
    lowest: float
    highest: float

    def level(self, logs: Sequence[float], works: Sequence[float]) -> list[float]:
        """The logs of launches as they would be at the middle speed, by the logs of fixed work beside them."""
        return [log - self.exponent * (work - self.center) for log, work in zip(logs, works, strict=True)]

    def reaches(self, works: Sequence[float]) -> bool:
        """Whether a line can be told to go on to launches: half of its own length beyond its ends, and no further."""
        margin = (self.highest - self.lowest) / 2
        return self.lowest - margin <= statistics.fmean(works) <= self.highest + margin

    def find_leverage(self, works: Sequence[float]) -> float:
        """What not knowing the line adds to the variance of the mean of launches, in variances of what it went through.

        It grows with the square of how far their machine is from the middle.
        """
        return (statistics.fmean(works) - self.center) ** 2 / self.spread


def draw_line(works: Sequence[float], logs: Sequence[float]) -> MachineLine | None:
    """The line of least squares; None where it is not shown to rise.

    Args:
        works: Means of the logs of the time of fixed work beside each occasion.
        logs: Those of the measurement, more of which is slower.

    Source: analysis of covariance (Fisher, 1932), with the time of fixed work as the covariate.
    """
    if len(works) < MIN_LINE:
        return None
    freedom = len(works) - 2
    center, middle = statistics.fmean(works), statistics.fmean(logs)
    across, up = [work - center for work in works], [log - middle for log in logs]
    spread = math.fsum(work * work for work in across)
    if spread < len(works) * LEAST_SPREAD**2:
        return None
    slope = math.fsum(work * log for work, log in zip(across, up, strict=True)) / spread
    rest = math.fsum((log - slope * work) ** 2 for work, log in zip(across, up, strict=True))
    error = math.sqrt(rest / freedom / spread)
    from scipy import special  # noqa: PLC0415  imported late

    if slope <= error * float(special.stdtrit(freedom, 1 - RELATED_ALPHA)):
        return None
    return MachineLine(slope, center, spread, min(works), max(works))
