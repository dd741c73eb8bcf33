"""When two numbers of two runs count as the same: to the last bit, or within what rounding grows to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

RATE_TOLERANCE = 1e-6
"""Rates are computed by the program in plain arithmetic: machines agree on them, but for single precision."""
TINY = 1e-12


class Ruler(Protocol):
    """Compares what two runs have in common."""

    @property
    def is_exact(self) -> bool:
        """Whether every bit counts, so that fingerprints tell."""

    def is_same(self, baseline: float | None, observed: float | None, step: int) -> bool:
        """Whether a norm of a step is the same; NaN is the same as nothing."""

    def is_same_loss(self, baseline: float | None, observed: float | None, step: int) -> bool:
        """Whether a loss of a step is the same: it may be a sum that cancels, so that rounding is all that is left."""

    def find_allowed(self, step: int) -> float:
        """The relative difference allowed in a step."""


class ExactRuler:
    """Within one numerics class: every bit counts."""

    is_exact = True

    def is_same(self, baseline: float | None, observed: float | None, step: int) -> bool:
        """Whether both are the same number, or both are missing."""
        del step
        return baseline == observed

    is_same_loss = is_same

    def find_allowed(self, step: int) -> float:
        """Nothing."""
        del step
        return 0.0


@dataclass(frozen=True, slots=True)
class ToleranceRuler:
    """Between numerics classes: a relative difference is allowed, larger with every step.

    Attributes:
        allowed: Largest relative difference by step, from step 0 on; the last one holds for all after it.
        loss_size: Differences of losses below it are relative to it.
    """

    allowed: tuple[float, ...]
    loss_size: float = 0.0
    is_exact: bool = False

    def is_same(self, baseline: float | None, observed: float | None, step: int) -> bool:
        """Whether both are within the tolerance of the step, or one is missing."""
        return self._is_near(baseline, observed, step, 0.0)

    def is_same_loss(self, baseline: float | None, observed: float | None, step: int) -> bool:
        """Whether both are within the tolerance of the step for the size that losses have, or one is missing."""
        return self._is_near(baseline, observed, step, self.loss_size)

    def _is_near(self, baseline: float | None, observed: float | None, step: int, size: float) -> bool:
        if baseline is None or observed is None:
            return True
        distance = measure_distance(baseline, observed, size)
        # Where everything is allowed, one that is not finite still is not.
        return math.isfinite(distance) and distance <= self.find_allowed(step)

    def find_allowed(self, step: int) -> float:
        """The relative difference allowed in a step."""
        return self.allowed[min(step, len(self.allowed) - 1)]


def measure_distance(baseline: float, observed: float, size: float = 0.0) -> float:
    """The relative difference of two numbers; infinite where one is not finite, and the other not the same.

    Args:
        baseline: One of them.
        observed: The other one.
        size: What the difference is relative to at least.
    """
    if baseline == observed:
        return 0.0
    if not (math.isfinite(baseline) and math.isfinite(observed)):
        return math.inf
    return abs(observed - baseline) / max(abs(baseline), abs(observed), size, TINY)


def is_same_rate(baseline: float | None, observed: float | None) -> bool:
    """Whether two learning rates are the same, on whatever machines."""
    if baseline is None or observed is None:
        return baseline is observed
    return measure_distance(baseline, observed) <= RATE_TOLERANCE
