"""The two checks that people write themselves: the loss falls, and the final loss is that of a stored run."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

NUM_LAST = 5
TOLERANCE = 0.05


def fails_naive_check(losses: Sequence[float]) -> bool:
    """Whether the last loss is not below the first, or is not finite."""
    if not losses:
        return True
    return not (math.isfinite(losses[-1]) and losses[-1] < losses[0])


def fails_loss_baseline(losses: Sequence[float], clean: Sequence[float]) -> bool:
    """Whether the mean of the last losses is more than 5 % away from that of the clean run with the same seed."""
    if not losses or not clean:
        return True
    found = statistics.fmean(losses[-NUM_LAST:])
    wanted = statistics.fmean(clean[-NUM_LAST:])
    return not abs(found - wanted) <= TOLERANCE * abs(wanted)
