"""What a night could be known by from the nights before it, taken out of a series.

Nights are alike: a busy neighbour stays for days. A sum over such nights strays further than one over independent
ones, so they are turned into differences from their forecasts first, which are independent.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

CORRELATION = 0.5
"""How alike successive nights are in what all their launches have in common. Assumed: thirty nights can't tell it."""

UNKNOWN_SHARE = 0.5
"""Share of the variance that launches of a night have in common, where nights of one launch don't tell it."""


class Whitening:
    """Forecasts of a series of nights, whose noise is a common and an own part.

    The common part is the night's, and follows from night to night by `CORRELATION`; the own part is that of the mean
    of its launches, and independent. Both together have the variance 1 for a night as the anchor has them.

    Args:
        common: Share of the common part, 0 to 1.
        own: Variance of the own part of each night, oldest first, in units of the whole of an anchor's night.

    Source: Kalman, Journal of Basic Engineering 82 (1960), for a hidden autoregression of first order.
    """

    def __init__(self, common: float, own: Sequence[float]) -> None:
        self._gains: list[float] = []
        self._widths: list[float] = []
        unknown = common
        for variance in own:
            whole = max(unknown + variance, 1e-12)
            gain = unknown / whole
            self._gains.append(gain)
            self._widths.append(math.sqrt(whole))
            unknown = CORRELATION**2 * unknown * (1 - gain) + (1 - CORRELATION**2) * common

    def whiten(self, values: Sequence[float], first: int = 0) -> list[float]:
        """Differences from the forecasts, in their standard deviations; before night `first` all was 0."""
        forecast, differences = 0.0, []
        for night, value in enumerate(values, start=first):
            difference = value - forecast
            differences.append(difference / self._widths[night])
            forecast = CORRELATION * (forecast + self._gains[night] * difference)
        return differences
