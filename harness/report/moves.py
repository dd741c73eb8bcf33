"""By how much the numbers of two trajectories differ, as rows and curves for people."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.baselines.trajectory_json import shorten
from harness.budgets.metrics import find_final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.baselines.trajectory import TracePoint, Trajectory

METRICS: dict[str, Callable[[TracePoint], float | None]] = {
    "loss": lambda point: point.loss,
    "learning rate": lambda point: next(iter(point.learning_rates), None),
    "gradient norm": lambda point: point.grad_norm if point.grad_norm is not None else point.clipped_norm,
    "update norm": lambda point: point.update_norm,
}
"""What a step is shown by; of several learning rates the first."""


@dataclass(frozen=True, slots=True)
class Move:
    """How one number of the steps moved.

    Attributes:
        metric: Its name.
        num_different: Steps in which it differs; a step that only one of them has counts.
        num_steps: Steps that have it in either.
        first_step: The first in which it differs; None where all are equal.
        largest: The greatest difference, as a share of the baseline's value.
        baseline: The value of the baseline's last step; the final loss for a loss.
        observed: The same of the observed.
    """

    metric: str
    num_different: int
    num_steps: int
    first_step: int | None
    largest: float
    baseline: float | None
    observed: float | None

    @property
    def change(self) -> str:
        """The last values and how far apart they are: `1.585 -> 1.602 (+1.1 %)`."""
        return tell_change(self.baseline, self.observed)


def list_moves(baseline: Trajectory, observed: Trajectory) -> list[Move]:
    """A row for each number that any of the two has."""
    moves = []
    for metric in METRICS:
        before, now = pick_curve(baseline, metric), pick_curve(observed, metric)
        if not (before or now):
            continue
        steps = sorted({*before, *now})
        different = [step for step in steps if not _is_same(before.get(step), now.get(step))]
        shares = [
            _measure_share(before[step], now[step]) for step in different if step in before and step in now
        ]
        moves.append(
            Move(
                metric=metric,
                num_different=len(different),
                num_steps=len(steps),
                first_step=different[0] if different else None,
                largest=max(shares, default=0.0),
                baseline=_find_last(metric, list(before.values())),
                observed=_find_last(metric, list(now.values())),
            )
        )
    return moves


def pick_curve(trajectory: Trajectory, metric: str) -> dict[int, float]:
    """The values of one number, by step."""
    values = {point.step: METRICS[metric](point) for point in trajectory.points}
    return {step: value for step, value in values.items() if value is not None}


def tell_change(before: float | None, now: float | None) -> str:
    """Two values and how far apart they are, in words: `1.585 -> 1.602 (+1.1 %)`."""
    if before is None or now is None:
        return f"{_show(before)} -> {_show(now)}"
    if _is_same(before, now):
        return f"{now:.4g}, unchanged"
    if not (math.isfinite(before) and math.isfinite(now)) or before == 0:
        return f"{before:.4g} -> {now:.4g}"
    share = (now - before) / abs(before)
    # As many digits as tell the two apart.
    digits = next((count for count in (4, 6, 9) if f"{before:.{count}g}" != f"{now:.{count}g}"), 17)
    shown = f"{share:+.1%}".replace("%", " %") if abs(share) >= 0.0005 else f"{share:+.1e}"  # noqa: PLR2004
    return f"{before:.{digits}g} -> {now:.{digits}g} ({shown})"


def _find_last(metric: str, values: Sequence[float]) -> float | None:
    if metric == "loss":
        return find_final(values)
    return values[-1] if values else None


def _is_same(before: float | None, now: float | None) -> bool:
    return before is not None and now is not None and shorten(before) == shorten(now)


def _measure_share(before: float, now: float) -> float:
    if not (math.isfinite(before) and math.isfinite(now)):
        return math.inf
    return abs(now - before) / abs(before) if before else math.inf


def _show(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"
