"""A comparison with a stored trajectory as plain JSON data, for the session's document and the picture."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from harness.baselines.comparison import Match
from harness.baselines.tolerance import build_tolerance
from harness.baselines.trajectory_judge import TrajectoryVerdict
from harness.report.moves import METRICS, list_moves, pick_curve
from harness.report.trajectory import tell_accepted, tell_outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.baselines.trajectory_judge import TrajectoryResult

BANDED = ("loss", "gradient norm")
DRAWN = ("loss", "gradient norm", "learning rate")


def describe_trajectory(result: TrajectoryResult) -> dict[str, Any]:
    """What a comparison came to: the verdict, the first difference, by how much numbers moved, and the curves.

    Numbers that are not finite stay what they are; the document makes text of them.
    """
    comparison, baseline, observed = result.comparison, result.baseline, result.observed
    is_accepting = result.verdict in (TrajectoryVerdict.ACCEPTED, TrajectoryVerdict.UNCHANGED)
    return {
        "test": observed.test,
        "verdict": str(result.verdict),
        "message": tell_accepted(result) if is_accepting else tell_outcome(result),
        "numerics_class": observed.numerics_class,
        "is_exact": comparison.is_exact if comparison else None,
        "reason": comparison.reason if comparison else "",
        "notes": list(comparison.notes) if comparison else [],
        "baseline": None
        if baseline is None
        else {
            "place": result.place,
            "numerics_class": baseline.numerics_class,
            **{name: value for name, value in asdict(baseline.provenance).items() if name != "environment"},
        },
        "divergence": None
        if comparison is None or comparison.divergence is None
        else asdict(comparison.divergence) | {"phase": str(comparison.divergence.phase)},
        "moves": [] if baseline is None else [asdict(move) for move in list_moves(baseline, observed)],
        "curves": {
            metric: {
                "observed": _list_points(pick_curve(observed, metric)),
                "baseline": _list_points(pick_curve(baseline, metric)) if baseline else [],
            }
            for metric in METRICS
            if metric in DRAWN
        },
        "band": _describe_band(result),
        "picture": None,
    }


def _describe_band(result: TrajectoryResult) -> dict[str, list[list[float]]]:
    """Between which values a loss and a gradient norm may lie, by step; empty where every bit is compared.

    It ends where rounding may have grown beyond what single steps tell.
    """
    comparison, baseline = result.comparison, result.baseline
    if (
        baseline is None
        or comparison is None
        or comparison.is_exact
        or comparison.match is Match.NOT_COMPARABLE
    ):
        return {}
    ruler = build_tolerance(baseline, result.observed)
    band: dict[str, list[list[float]]] = {}
    for metric in BANDED:
        curve = pick_curve(baseline, metric)
        size = ruler.loss_size if metric == "loss" else 0.0
        rows = [
            [point.step, value - allowed * max(abs(value), size), value + allowed * max(abs(value), size)]
            for index, point in enumerate(baseline.points[: len(result.observed.points)])
            if (value := curve.get(point.step)) is not None
            and math.isfinite(allowed := ruler.find_allowed(index))
        ]
        band |= {metric: rows} if rows else {}
    return band


def summarize_trajectory(described: dict[str, Any]) -> str:
    """The verdict in few words: `matches`, `diverged: gradients at step 6`, `missing baseline`."""
    divergence = described["divergence"]
    if described["verdict"] == TrajectoryVerdict.DIVERGED and divergence is not None:
        return f"{described['verdict']}: {divergence['phase']} at step {divergence['step']}"
    return str(described["verdict"])


def _list_points(curve: dict[int, float]) -> Sequence[Sequence[float]]:
    return [[step, value] for step, value in curve.items()]
