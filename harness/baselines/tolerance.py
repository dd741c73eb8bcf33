"""How far two runs of the same program may be apart on different machines: measured rounding, and how it grows.

Losses of two machines differ in their last digits from the first step on, and training multiplies that from step
to step. So the allowance begins at a floor, and follows what was seen: a step may be further apart than those
before it by a factor that rounding reaches in one step, and a change of the program exceeds at once. Where rounding
has grown beyond what can be told from a change, single steps say nothing any more, and the course of the loss as a
whole is compared.
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from harness.baselines.ruler import ToleranceRuler, measure_distance
from harness.baselines.trajectory import Phase

if TYPE_CHECKING:
    from harness.baselines.trajectory import Trajectory

FLOOR, HALF_FLOOR = 2e-5, 5e-3
"""Relative differences of the first loss, in single and in half precision; see docs/detection.md for measured ones."""
LATER_FLOOR = 1e-4
"""From the second step on: one update made 5.5e-5 between instruction sets of a first loss that was the same."""
GROWTH = 1.15
"""Growth of the floor from step to step, where nothing was seen to differ by more."""
FACTOR = 50.0
"""How much further apart than all steps before it one step may be."""
LINE_SEARCH, LINE_SEARCH_FACTOR = "LBFGS", 10 * FACTOR
"""It divides by differences of gradients that come close to each other, and its steps part faster."""
GRADIENT_SHARE = 0.1
"""The size of a loss that cancels, as a share of the norm of its gradient."""
HORIZON = 0.05
"""Allowances above it tell nothing from a change: from there on the course of the loss is compared."""
HALF_PRECISION = ("bfloat16", "float16")
DRIFT = 0.1
"""By which share of its size the mean loss may differ beyond the horizon, and its noise."""
DRIFT_SPREAD = 3.0
MIN_DRIFT_STEPS = 5
CORRELATED_STEPS = 4
"""Losses of so many steps count as one: they depend on one another."""


def build_tolerance(baseline: Trajectory, observed: Trajectory) -> ToleranceRuler:
    """The allowance for every step that both runs have; infinite beyond the horizon."""
    floor = HALF_FLOOR if _is_half(baseline) or _is_half(observed) else FLOOR
    factor = LINE_SEARCH_FACTOR if _has_line_search(baseline) or _has_line_search(observed) else FACTOR
    loss_size = _find_loss_size(baseline, observed)
    allowed: list[float] = []
    grown, seen = floor, 0.0
    for step, (one, other) in enumerate(zip(baseline.points, observed.points, strict=False)):
        now = max(grown, LATER_FLOOR if step else 0.0, factor * seen)
        if now > max(HORIZON, floor):
            # The last one holds for all steps after it.
            allowed.append(math.inf)
            break
        allowed.append(now)
        grown *= GROWTH
        for before, after, size in (
            (one.loss, other.loss, loss_size),
            (one.grad_norm, other.grad_norm, 0.0),
        ):
            if before is not None and after is not None and math.isfinite(before) and math.isfinite(after):
                seen = max(seen, measure_distance(before, after, size))
    return ToleranceRuler(tuple(allowed), loss_size)


def _find_loss_size(baseline: Trajectory, observed: Trajectory) -> float:
    """How large losses are whose terms cancel, as those of a policy do: their gradients do not.

    Of both runs the smaller size counts, so that one that explodes hides nothing.
    """
    norms = [
        [point.grad_norm for point in run.points if point.grad_norm and math.isfinite(point.grad_norm)]
        for run in (baseline, observed)
    ]
    return GRADIENT_SHARE * min(statistics.median(found) if found else 0.0 for found in norms)


def _has_line_search(trajectory: Trajectory) -> bool:
    return any(LINE_SEARCH in str(value) for value in trajectory.settings.get(Phase.OPTIMIZER, {}).values())


def _is_half(trajectory: Trajectory) -> bool:
    forward = trajectory.settings.get(Phase.FORWARD, {})
    told = f"{forward.get('precision: autocast', '')} {forward.get('precision: default dtype', '')}"
    shapes = trajectory.settings.get(Phase.INITIALISATION, {}).values()
    return any(kind in told or any(kind in str(shape) for shape in shapes) for kind in HALF_PRECISION)


def find_drift(baseline: Trajectory, observed: Trajectory, ruler: ToleranceRuler) -> str:
    """How the course of the loss differs beyond the horizon, in words; empty where it does not, or is too short.

    The means of both are compared: they differ where that is more than a tenth of the loss's size, and more than
    the scatter of the differences explains. Empty: not shown to differ, not shown equal.
    """
    beyond = [
        (one.loss, other.loss)
        for step, (one, other) in enumerate(zip(baseline.points, observed.points, strict=False))
        if math.isinf(ruler.find_allowed(step)) and one.loss is not None and other.loss is not None
    ]
    if any(not math.isfinite(loss) for pair in beyond for loss in pair):
        return "the loss is not finite"
    if len(beyond) < MIN_DRIFT_STEPS:
        return ""
    differences = [other - one for one, other in beyond]
    size = statistics.fmean(max(abs(one), abs(other)) for one, other in beyond)
    num_independent = max(1.0, len(beyond) / CORRELATED_STEPS)
    noise = statistics.stdev(differences) / math.sqrt(num_independent)
    mean = statistics.fmean(differences)
    if abs(mean) <= DRIFT * size + DRIFT_SPREAD * noise:
        return ""
    before, now = (statistics.fmean(losses) for losses in zip(*beyond, strict=True))
    return f"mean loss of the last {len(beyond)} steps {before:.4g} -> {now:.4g}"
