"""Whether the parameters that a step begins with are the same: first values, or what was written since."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.baselines.pairs import SAME_TENSORS, Difference, tell_ratio
from harness.baselines.ruler import measure_distance
from harness.baselines.trajectory import Phase

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from harness.baselines.pairs import Pair
    from harness.baselines.ruler import Ruler
    from harness.baselines.trajectory import TensorPoint, Trajectory

VALUES_OF = "values of"
"""Begins what parameters are called that differ before a step."""


def compare_parameters(pair: Pair, ruler: Ruler) -> Iterator[Difference]:
    """Parameters with other values before the step.

    In the first step these are first values, also of optimizers that step later. In a later one, after the same
    updates, the parameters were written to since, but for rounding.
    """
    before, now = list_values(pair.baseline, pair.index), list_values(pair.observed, pair.index)
    names = [
        name
        for name, other in now.items()
        if (one := before.get(name)) is not None and not _is_same(one, other, pair, ruler)
    ]
    if names:
        norms = before[names[0]].weight_norm, now[names[0]].weight_norm
        phase = _place(pair, ruler, [(before[name].weight_norm, now[name].weight_norm) for name in names])
        yield Difference(phase, f"{VALUES_OF} `{names[0]}`", tell_ratio("norm", *norms), tuple(names))
        return
    norms = pair.before.weight_norm, pair.now.weight_norm
    if ruler.is_exact and None not in norms and norms[0] != norms[1] and not _holds_others(pair):
        yield Difference(
            _place(pair, ruler, [norms]), f"{VALUES_OF} the parameters", tell_ratio("norm", *norms), ("*",)
        )


def list_values(trajectory: Trajectory, index: int) -> dict[str, TensorPoint]:
    """The parameters known before a step, by name.

    In the first step all first values count that are known: those of an optimizer that has not stepped yet are seen
    when it does.
    """
    if index > 0:
        deep = trajectory.find_deep(trajectory.points[index].step)
        return {tensor.name: tensor for tensor in deep.tensors} if deep is not None else {}
    found: dict[str, TensorPoint] = {}
    moved: set[str] = set()
    for point in trajectory.points:
        deep = trajectory.find_deep(point.step)
        if deep is None:
            break
        for tensor in deep.tensors:
            if tensor.name not in moved:
                found.setdefault(tensor.name, tensor)
        moved.update(trajectory.list_tensors(point))
    return found


def _is_same(one: TensorPoint, other: TensorPoint, pair: Pair, ruler: Ruler) -> bool:
    if ruler.is_exact and one.contents and other.contents:
        return one.contents == other.contents
    return ruler.is_same(one.weight_norm, other.weight_norm, pair.index)


def _place(pair: Pair, ruler: Ruler, norms: list[tuple[float | None, float | None]]) -> Phase:
    """The phase of values that differ before a step.

    What is done to parameters from the first update on, as clamping them, belongs to the update; values that they
    get later were set anew. Between machines, the updates before are not known.
    """
    if pair.index == 0:
        return Phase.INITIALISATION
    if pair.index == 1 or not ruler.is_exact or _is_rounding(norms):
        return Phase.OPTIMIZER
    return Phase.INITIALISATION


def _is_rounding(norms: Iterable[tuple[float | None, float | None]]) -> bool:
    """Whether values differ by no more than another order of summation makes of them."""
    return all(
        one is not None and other is not None and measure_distance(one, other) <= SAME_TENSORS
        for one, other in norms
    )


def _holds_others(pair: Pair) -> bool:
    """Whether the optimizers of the step hold other tensors, so that the norms of all are of different things."""
    before, now = pair.baseline.list_tensors(pair.before), pair.observed.list_tensors(pair.now)
    return set(before) != set(now)
