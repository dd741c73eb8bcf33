"""How far unchanged programs are apart on two machines: the noise that allowances of a comparison are made from."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from benchmarks.detection.cache import Cache
from benchmarks.detection.child import FINISHED
from benchmarks.divergence.machines import HOME, OTHERS
from harness.baselines.ruler import measure_distance
from harness.record.observation import RunObservation

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from benchmarks.detection.cache import Cell
    from benchmarks.detection.fault import Mutant

STEPS = (0, 1, 5, 10, 20, 40)
SHARES = (0.5, 0.9, 0.99)
LOSS, GRADIENT, UPDATE, WEIGHT = "loss", "gradient norm", "update norm", "weight norm"
METRICS = (LOSS, GRADIENT, UPDATE, WEIGHT)

Curves = dict[tuple[str, int], float]
"""One number for a metric and a step."""


def measure_noise(folder: Path, mutants: Sequence[Mutant], seed: int) -> dict[tuple[str, int], list[float]]:
    """Relative differences by metric and step, over all programs and machines that were recorded."""
    found: dict[tuple[str, int], list[float]] = {}
    home = Cache(folder / HOME.name, any_watcher=True)
    others = [Cache(folder / machine.name, any_watcher=True) for machine in OTHERS]
    for mutant in mutants:
        baseline = read_curves(home.find_cell(mutant, seed))
        for cache in others:
            observed = read_curves(cache.find_cell(mutant, seed)) if baseline else {}
            for key in baseline.keys() & observed.keys():
                found.setdefault(key, []).append(measure_distance(baseline[key], observed[key]))
    return found


def read_curves(cell: Cell) -> Curves:
    """Loss and norms of the steps that are looked at; empty without a record."""
    if not cell.is_recorded:
        return {}
    record = cell.read_record()
    if record["status"] != FINISHED or not record["observed"]:
        return {}
    run = RunObservation.from_json(record["observed"])
    curves: Curves = {}
    for step in run.steps:
        if step.step not in STEPS:
            continue
        if step.loss is not None:
            curves[LOSS, step.step] = step.loss
        if step.trace is not None:
            curves[GRADIENT, step.step] = _join(norm for row in step.trace.gradients for norm in row)
            curves[UPDATE, step.step] = _join(norm for row in step.trace.updates for norm in row)
    for deep in run.deep_steps:
        if deep.step in STEPS:
            curves[WEIGHT, deep.step] = _join(parameter.weight_norm for parameter in deep.parameters)
    return {key: value for key, value in curves.items() if math.isfinite(value)}


def _join(norms: Iterable[float | None]) -> float:
    return math.sqrt(sum(norm * norm for norm in norms if norm is not None))


def build_table(noise: dict[tuple[str, int], list[float]]) -> str:
    """Quantiles by metric and step, in Markdown."""
    heads = ["metric", "step", "runs", "same bits", *(f"{share:.0%}" for share in SHARES), "most"]
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    for metric in METRICS:
        for step in STEPS:
            values = sorted(noise.get((metric, step), ()))
            if not values:
                continue
            same = sum(value == 0 for value in values) / len(values)
            quantiles = [values[min(len(values) - 1, int(share * len(values)))] for share in SHARES]
            cells = [metric, str(step), str(len(values)), f"{same:.0%}"]
            cells += [f"{value:.1e}" if value else "0" for value in (*quantiles, values[-1])]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
