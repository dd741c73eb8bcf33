"""Stored baselines as tables for people: what there is, what one holds, and how two differ."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.report.columns import align_columns
from harness.report.moves import METRICS, list_moves, pick_curve
from harness.report.trajectory import SHORT_COMMIT, tell_provenance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.baselines.comparison import TrajectoryComparison
    from harness.baselines.pools import Pool
    from harness.baselines.trajectory import Trajectory

LIST_HEADER = ("test", "kind", "class", "size", "accepted", "commit", "reason")
MOVES_HEADER = ("number", "first differs", "steps that differ", "largest", "last", "")


@dataclass(frozen=True, slots=True)
class Row:
    """One stored baseline.

    Attributes:
        test: The test or name it belongs to.
        kind: "trajectory" or "budget".
        of_class: Numerics or runner class.
        size: Steps of a trajectory, launches of a pool, in words.
        accepted: The day.
        commit: Short; with a plus where files were not committed.
        reason: Why it was accepted; of a pool, its newest launch.
    """

    test: str
    kind: str
    of_class: str
    size: str
    accepted: str
    commit: str
    reason: str


def describe_trajectory_row(trajectory: Trajectory) -> Row:
    """The row of a stored trajectory."""
    origin = trajectory.provenance
    return Row(
        trajectory.test,
        "trajectory",
        trajectory.numerics_class,
        f"{len(trajectory.points)} steps",
        origin.accepted_at.partition("T")[0],
        _shorten_commit(origin.commit, is_dirty=bool(origin.uncommitted)),
        origin.reason,
    )


def describe_pool_row(pool: Pool) -> Row:
    """The row of a pool of launches."""
    newest = pool.launches[-1]
    return Row(
        pool.test,
        "budget",
        pool.runner_class,
        f"{len(pool.launches)} launches",
        newest.recorded_at.partition("T")[0],
        _shorten_commit(newest.commit, is_dirty=bool(newest.is_dirty)),
        newest.reason,
    )


def list_baselines(rows: Sequence[Row]) -> list[str]:
    """One line a baseline, under a header."""
    cells = [
        (row.test, row.kind, row.of_class, row.size, row.accepted, row.commit, row.reason)
        for row in sorted(rows, key=lambda row: (row.test, row.kind, row.of_class))
    ]
    return align_columns([LIST_HEADER, *cells])


def show_trajectory(trajectory: Trajectory) -> list[str]:
    """Where a trajectory comes from, a line for each step, and what the run was set up with."""
    ranks = f"{trajectory.num_ranks} rank{'s' if trajectory.num_ranks > 1 else ''}"
    depth = ", ".join(str(deep.step) for deep in trajectory.deep) or "none"
    num_tensors = sum(map(len, trajectory.parameters))
    lines = [
        trajectory.test,
        f"  class: {trajectory.numerics_class}",
        f"  origin: {tell_provenance(trajectory.provenance)}",
        f"  {len(trajectory.points)} steps on {ranks}, {num_tensors} tensors; in depth: {depth}",
        "",
    ]
    curves = {metric: pick_curve(trajectory, metric) for metric in METRICS}
    seen = [metric for metric, curve in curves.items() if curve]
    table = [("step", *seen)]
    table += [
        (str(point.step), *(_show(curves[metric].get(point.step)) for metric in seen))
        for point in trajectory.points
    ]
    lines += align_columns(table, is_right=range(len(seen) + 1))
    for phase, settings in trajectory.settings.items():
        lines += ["", f"{phase}:", *(f"  {name}: {value}" for name, value in settings.items())]
    return lines


def show_moves(baseline: Trajectory, observed: Trajectory) -> list[str]:
    """A line for each number: the first step in which it differs, in how many, by how much at most, and the last."""
    rows: list[tuple[str, ...]] = [MOVES_HEADER[:-1]]
    for move in list_moves(baseline, observed):
        is_same = move.first_step is None
        largest = "no number" if math.isinf(move.largest) else f"{move.largest:.1%}".replace("%", " %")
        if 0 < move.largest < 0.0005:  # noqa: PLR2004
            largest = f"{move.largest:.1e}"
        rows.append(
            (
                move.metric,
                "-" if is_same else str(move.first_step),
                f"{move.num_different} of {move.num_steps}",
                "-" if is_same else largest,
                move.change,
            )
        )
    return align_columns(rows, is_right=(1, 2, 3))


def tell_comparison(comparison: TrajectoryComparison, names: tuple[str, str]) -> list[str]:
    """Whether two trajectories are the same and how that was found out, and what differs first."""
    how = "to the last digit" if comparison.is_exact else "by tolerance"
    lines = [f"{names[0]} -> {names[1]}: {comparison.match}, compared {how}"]
    lines += [f"  {comparison.reason}"] if comparison.reason else []
    divergence = comparison.divergence
    if divergence is not None:
        change = f" ({divergence.change})" if divergence.change else ""
        lines.append(
            f"First difference: {divergence.phase} at step {divergence.step}: {divergence.item}{change}."
        )
        lines += [f"Likely: {cause}" for cause in divergence.causes]
    return lines + [f"note: {note}" for note in comparison.notes]


def _shorten_commit(commit: str | None, *, is_dirty: bool) -> str:
    return f"{commit[:SHORT_COMMIT]}{'+' if is_dirty else ''}" if commit else "-"


def _show(value: float | None) -> str:
    return "" if value is None else f"{value:.7g}"
