"""The learning rate as a function of the step: linear warm-up, then half a cosine."""

from __future__ import annotations

import math


def lr_factor(step: int, *, num_steps: int, warmup_fraction: float, min_ratio: float) -> float:
    """Learning rate of a step over the highest one.

    Rises from 1/warm-up at step 0 to 1 at the end of the warm-up, then falls to `min_ratio` at `num_steps`
    and stays there. A warm-up of no steps starts at 1.

    Args:
        step: steps taken so far, from 0.
        num_steps: steps of the whole run.
        warmup_fraction: share of the steps spent in warm-up, 0 to 1.
        min_ratio: factor at the end, 0 to 1.
    """
    num_warmup = round(num_steps * warmup_fraction)
    if step < num_warmup:
        return (step + 1) / num_warmup
    progress = min(1.0, (step - num_warmup) / max(1, num_steps - num_warmup))
    return min_ratio + (1.0 - min_ratio) * 0.5 * (1.0 + math.cos(math.pi * progress))
