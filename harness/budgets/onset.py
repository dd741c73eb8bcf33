"""Locates the night where a change began, as a step or as a creep, once a trend is known to have left its level."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

CONFIDENCE = 0.95
MIN_CREEP = 3
"""A creep has to be seen on so many nights: two points are a step as well."""


class Shape(StrEnum):
    """How a series left its level."""

    STEP = "step"
    CREEP = "creep"


@dataclass(frozen=True, slots=True)
class Onset:
    """Where a change began, and how large it has become.

    Attributes:
        shape: Whether the new level was reached at once, or is still being left.
        index: The first night that differs from the level.
        earliest: The first night that it may have begun with, at 95 %.
        latest: The last such night.
        change: How far the last night lies above the level, by the fitted shape, in logs.
        half_width: Half the width of the 95 % interval of `change`.
        per_night: Slope of a creep in logs a night; 0 for a step.
    """

    shape: Shape
    index: int
    earliest: int
    latest: int
    change: float
    half_width: float
    per_night: float


def find_onset(logs: Sequence[float], *, level: float, noise: float, num_anchor: int) -> Onset:
    """The night from which a series left a known level, by least squares over every night and both shapes.

    One change against a level that the anchor tells is searched over all n nights, which is exact and costs
    n squared operations: the dynamic programme of a change-point library would come to the same night. The shape
    that leaves the smaller residuals wins. The interval holds every night at which the residuals grow by no more
    than noise explains (the profile likelihood). Intervals take nights as independent.

    Args:
        logs: The judged nights, oldest first.
        level: Mean log of the anchor.
        noise: Standard deviation of a night around its level, above 0.
        num_anchor: Nights of the anchor.

    Raises:
        ValueError: There is no night.

    Source: Hinkley, Biometrika 57 (1970), for a step; Hinkley, Biometrika 56 (1969), for a broken line.
    """
    if not logs:
        raise ValueError("an onset needs a night")
    from scipy import stats  # noqa: PLC0415  imported late: 400 ms

    above = [log - level for log in logs]
    fits = {shape: [_fit(above, index, shape) for index in range(len(above))] for shape in Shape}
    best = {shape: min(range(len(above)), key=lambda index: fits[shape][index][0]) for shape in Shape}
    is_creep = (
        len(above) - best[Shape.CREEP] >= MIN_CREEP
        and fits[Shape.CREEP][best[Shape.CREEP]][0] < fits[Shape.STEP][best[Shape.STEP]][0]
    )
    shape = Shape.CREEP if is_creep else Shape.STEP
    index = best[shape]
    residual, slope, weight = fits[shape][index]
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, max(1, num_anchor - 1)))
    allowed = residual + (quantile * noise) ** 2
    plausible = [night for night in range(len(above)) if fits[shape][night][0] <= allowed]
    reach = len(above) - index if shape is Shape.CREEP else 1
    half_width = quantile * noise * math.sqrt(reach**2 / weight + 1 / num_anchor)
    return Onset(
        shape=shape,
        index=index,
        earliest=min(plausible),
        latest=max(plausible),
        change=slope * reach,
        half_width=half_width,
        per_night=slope if shape is Shape.CREEP else 0.0,
    )


def _fit(above: Sequence[float], index: int, shape: Shape) -> tuple[float, float, float]:
    """Residual sum of squares, slope (or height) and weight of a change that begins with night `index`."""
    ramp = [
        0.0 if night < index else (night - index + 1.0 if shape is Shape.CREEP else 1.0)
        for night in range(len(above))
    ]
    weight = sum(x * x for x in ramp)
    slope = sum(x * y for x, y in zip(ramp, above, strict=True)) / weight
    residual = sum((y - slope * x) ** 2 for x, y in zip(ramp, above, strict=True))
    return residual, slope, weight
