"""The machine's own speed: how far it moves a measurement, as the launches of a pool show."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MIN_FREEDOM = 15
"""Degrees of freedom below which a pool does not tell whether the machine's speed is in a measurement, or chance is."""

RELATED_ALPHA = 0.01
"""How surely a pool has to show that fixed work and the measurement move together."""

ROUNDING = 1e-12
"""Logs of times that differ by less than their arithmetic."""


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
class MachineEffect:
    """What the machine's speed does to the log of a measurement.

    Attributes:
        change: How much longer fixed work took beside the launches that are judged than beside those of the pool, as
            a share; 0.1 is 10 %.
        exponent: The measurement goes with this power of the time of fixed work: from 0, where the pool does not show
            that it does, to 1.
        error: Standard error of the exponent.
        freedom: Degrees of freedom of that error.
    """

    change: float
    exponent: float = 0.0
    error: float = 0.0
    freedom: int = 1

    @property
    def is_taken_out(self) -> bool:
        """Whether measurements are judged without it."""
        return self.exponent > 0

    @property
    def log_error(self) -> float:
        """Standard error of what is taken out of the mean of the launches that are judged."""
        return self.error * abs(math.log1p(self.change))


def take_machine_out(
    ours: Sequence[float],
    occasions: Sequence[Sequence[float]],
    works: FixedWorkTimes,
    find_center: Callable[[Sequence[Sequence[float]]], float],
    *,
    is_lower_better: bool,
) -> tuple[MachineEffect, list[float], list[list[float]]]:
    """What the machine's speed does to a measurement, and the logs as they would be at the speed of the pool's middle.

    Args:
        ours: Logs of the launches that are judged.
        occasions: Those of the pool.
        works: The times of fixed work, in the same order.
        find_center: Finds the middle of the logs of a pool.
        is_lower_better: True for times, which a slow machine makes longer, False for what it makes less.
    """
    our_works = [math.log(time_s) for time_s in works.observed]
    work_occasions = [[math.log(time_s) for time_s in times_s] for times_s in works.pool if times_s]
    center = find_center(work_occasions)
    sign = 1 if is_lower_better else -1
    effect = find_effect(
        math.expm1(statistics.fmean(our_works) - center),
        work_occasions,
        [[sign * log for log in logs] for logs in occasions],
    )

    def level(logs: Sequence[float], work_logs: Sequence[float]) -> list[float]:
        exponent = sign * effect.exponent
        return [log - exponent * (work - center) for log, work in zip(logs, work_logs, strict=True)]

    return effect, level(ours, our_works), [*map(level, occasions, work_occasions)]


def find_effect(
    change: float, works: Sequence[Sequence[float]], slowness: Sequence[Sequence[float]]
) -> MachineEffect:
    """How a measurement follows the machine's speed, by least squares over the launches of each occasion of a pool.

    What occasions differ by is left out: it says how much is left when the machine's speed is taken out, and must not
    have been fitted itself. An exponent is found where it is shown to be above 0. One above 1 is taken for 1: then it
    is the noise of few.

    Args:
        change: How much longer fixed work took beside the launches that are judged, as a share.
        works: Logs of the times that fixed work took beside each launch of the pool, by occasion.
        slowness: The log of the measurement of each, more of which is slower.

    Source: analysis of covariance (Fisher, 1932), with the time of fixed work as the covariate.
    """
    freedom = sum(map(len, works)) - len(works) - 1
    across, up = _center_each(works), _center_each(slowness)
    spread = math.fsum(work * work for work in across)
    if freedom < MIN_FREEDOM or spread < ROUNDING:
        return MachineEffect(change)
    slope = math.fsum(work * log for work, log in zip(across, up, strict=True)) / spread
    rest = math.fsum((log - slope * work) ** 2 for work, log in zip(across, up, strict=True))
    error = math.sqrt(rest / freedom / spread)
    from scipy import special  # noqa: PLC0415  imported late

    if slope <= error * float(special.stdtrit(freedom, 1 - RELATED_ALPHA)):
        return MachineEffect(change)
    return MachineEffect(change, min(slope, 1.0), error, freedom)


def _center_each(occasions: Sequence[Sequence[float]]) -> list[float]:
    return [log - statistics.fmean(logs) for logs in occasions for log in logs]
