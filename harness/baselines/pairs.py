"""A step of a baseline beside the same step of a run, and one thing in which they differ."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.baselines.ruler import measure_distance
from harness.baselines.trajectory import Phase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.baselines.trajectory import DeepPoint, TracePoint, Trajectory

LADDER = (
    Phase.DATA,
    Phase.RNG,
    Phase.INITIALISATION,
    Phase.FORWARD,
    Phase.LOSS,
    Phase.GRADIENTS,
    Phase.CLIPPING,
    Phase.SCHEDULE,
    Phase.OPTIMIZER,
)
"""The phases in the order in which a step passes them: the rate is there before the optimizer uses it."""
SAME_TENSORS = 1e-5
"""Norms that were summed up in another order differ by less."""
CONTENTS_TOLERANCE = 1e-3
VALUES_OF = "values of"
"""Begins what parameters are called that differ before a step."""
HELD = "parameters held by"
"""Begins what tells that an optimizer holds other parameters."""
MODE = "mode of"
"""Begins what tells that modules are in another mode."""


def is_rounding(one: float | None, other: float | None, share: float = SAME_TENSORS) -> bool:
    """Whether two numbers differ by no more than another order of summation makes of them, or one is not known."""
    return one is None or other is None or measure_distance(one, other) <= share


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that differs in a step.

    Attributes:
        item: What it is, as users know it.
        change: Both values.
        names: Tensors or modules that differ, in their order.
        moves: Whether it moves the training: a generator in another state, or a field of a batch that nothing
            uses, alone does not.
        is_beside: Whether it is about a model that no optimizer holds.
        is_of_call: Whether it is about the first of several calls of models in the step that differs.
    """

    phase: Phase
    item: str
    change: str
    names: tuple[str, ...] = ()
    moves: bool = True
    is_beside: bool = False
    is_of_call: bool = False


@dataclass(frozen=True, slots=True)
class Pair:
    """A step of the baseline beside the same step of the run."""

    baseline: Trajectory
    observed: Trajectory
    index: int

    @property
    def before(self) -> TracePoint:
        """The step as the baseline has it."""
        return self.baseline.points[self.index]

    @property
    def now(self) -> TracePoint:
        """The step as the run has it."""
        return self.observed.points[self.index]

    @property
    def deep(self) -> tuple[DeepPoint, DeepPoint] | None:
        """The step in depth in both; None where one was not watched so."""
        before, now = self.baseline.find_deep(self.before.step), self.observed.find_deep(self.now.step)
        return None if before is None or now is None else (before, now)

    @property
    def is_in_other_mode(self) -> bool:
        """Whether models that train may be called in eval mode in one of them only."""
        return self.lacks_training_calls or self.has_other_eval_calls

    @property
    def lacks_training_calls(self) -> bool:
        """Whether in one of them alone no model is called in training mode."""
        return bool(self.before.shapes) != bool(self.now.shapes)

    @property
    def has_other_eval_calls(self) -> bool:
        """Whether models are known to be called in eval mode more or less often in one of them.

        An evaluation between the steps counts as well, where it records a graph.
        """
        calls = self.before.num_eval_calls, self.now.num_eval_calls
        return None not in calls and calls[0] != calls[1]


def tell_ratio(what: str, baseline: float | None, observed: float | None) -> str:
    """Two numbers for people: `norm 0.41 -> 0.82, x2.00`."""
    if baseline is None or observed is None:
        one, other = ("none" if value is None else f"{value:.6g}" for value in (baseline, observed))
        return f"{what} {one} -> {other}".strip()
    digits = 4 if measure_distance(baseline, observed) > CONTENTS_TOLERANCE else 9
    text = f"{what} {baseline:.{digits}g} -> {observed:.{digits}g}".strip()
    can_divide = math.isfinite(baseline) and math.isfinite(observed) and baseline * observed > 0
    if not can_divide or baseline == observed:
        return text
    ratio = observed / baseline
    shown = f"x{ratio:.3g}" if abs(ratio - 1) >= 0.1 else f"{ratio - 1:+.2g} relative"  # noqa: PLR2004  a tenth
    return f"{text}, {shown}"


def tell_norms(baseline: Sequence[float | None], observed: Sequence[float | None]) -> str:
    """The norms of some tensors for people, all together where they are several: `norm of these 0.41 -> 0.82`."""
    what = "norm" if len(baseline) == 1 else "norm of these"
    return tell_ratio(what, _sum_up(baseline), _sum_up(observed))


def _sum_up(norms: Sequence[float | None]) -> float | None:
    """The norm of several tensors together, of those that have one; None where none has."""
    known = [norm for norm in norms if norm is not None]
    return math.hypot(*known) if known else None
