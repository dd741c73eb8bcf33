"""What a pair of processes, one of each program, says about their difference: one sample, however many its steps."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.record.step_observation import PHASES
from harness.record.warm_up import find_warm_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.record.step_observation import StepObservation

MIN_STEPS = 6
"""Fewer steps that both made are no base for a median of their ratios, let alone for a look at its drift."""
TRIM = 4
"""One in so many of the smallest and of the largest values is left out of a mean."""
LONG_TURN = 4
"""In turns of so many steps the first is left out: its caches are the other program's."""


@dataclass(frozen=True, slots=True)
class LaunchPair:
    """One process of the base beside one of the head.

    Attributes:
        log_ratio: Logarithm of the head's step time over the base's; middle mean over the steps.
        drift: By how much that is larger in the second half of the steps than in the first.
        base_step_s: The base's step time.
        head_step_s: The head's.
        phases_s: Base's and head's time by phase.
        growth: The middle mean, over the steps, of head minus base by phase, as shares of the base's step.
        num_steps: Steps compared.
        num_warm_up: Steps left out before them.
    """

    log_ratio: float
    drift: float
    base_step_s: float
    head_step_s: float
    phases_s: dict[str, tuple[float, float]]
    growth: dict[str, float]
    num_steps: int
    num_warm_up: int


def build_launch_pair(
    base: Sequence[StepObservation], head: Sequence[StepObservation], turns: Sequence[range]
) -> LaunchPair | None:
    """The pair's numbers, over the steps after the warm-up of both that both were timed in.

    What never settles, or is too noisy to tell, is taken from its middle on; its drift tells.

    Step is compared with step of the same number, so that a program whose steps differ, as with batches of
    different lengths, loses nothing by it. None where fewer than six steps are left.

    Args:
        base: Steps of the base's process.
        head: Steps of the head's.
        turns: The steps that both made in turns, one range a turn.
    """
    kept = [step for turn in turns for step in (turn[1:] if len(turn) >= LONG_TURN else turn)]
    rows = {step.step: step for step in base}, {step.step: step for step in head}
    pairs = [
        (rows[0][number], rows[1][number])
        for number in kept
        if all(number in found and (found[number].time_s or 0.0) > 0 for found in rows)
    ]
    times = [[pair[arm].time_s or math.nan for pair in pairs] for arm in (0, 1)]
    warm_up = min(max(find_warm_up(series) for series in times), len(pairs) // 2)
    pairs, times = pairs[warm_up:], [series[warm_up:] for series in times]
    if len(pairs) < MIN_STEPS:
        return None
    logs = [math.log(ours / theirs) for theirs, ours in zip(*times, strict=True)]
    half = len(logs) // 2
    base_step_s = find_middle_mean(times[0])
    growth, phases_s = {}, {}
    for phase in PHASES:
        parts = [[pair[arm].phase_times_s.get(phase, 0.0) for pair in pairs] for arm in (0, 1)]
        phases_s[phase] = find_middle_mean(parts[0]), find_middle_mean(parts[1])
        more = [ours - theirs for theirs, ours in zip(*parts, strict=True)]
        growth[phase] = find_middle_mean(more) / base_step_s
    return LaunchPair(
        log_ratio=find_middle_mean(logs),
        drift=find_middle_mean(logs[half:]) - find_middle_mean(logs[:half]),
        base_step_s=base_step_s,
        head_step_s=find_middle_mean(times[1]),
        phases_s=phases_s,
        growth=growth,
        num_steps=len(pairs),
        num_warm_up=warm_up,
    )


def find_middle_mean(values: Sequence[float]) -> float:
    """The mean of the middle half: nearly as steady as a mean, and as little moved by outliers as a median."""
    ordered = sorted(values)
    cut = len(ordered) // TRIM
    return statistics.fmean(ordered[cut : len(ordered) - cut])
