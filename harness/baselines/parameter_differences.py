"""Whether the parameters that a step begins with are the same: first values, or what was written since."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.baselines.names import agree, name_group
from harness.baselines.pairs import VALUES_OF, Difference, Pair, is_rounding, tell_norms, tell_ratio
from harness.baselines.trajectory import Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.baselines.ruler import Ruler
    from harness.baselines.trajectory import TensorPoint, Trajectory

MAX_WAIT = 8
"""The last step in which an optimizer that is there from the start takes its first, as where two take turns."""


def compare_parameters(pair: Pair, ruler: Ruler) -> Iterator[Difference]:
    """Parameters with other values before the step.

    In the first step these are first values, also of optimizers that step later. In a later one, after the same
    updates, the parameters were written to since, but for rounding. Between machines first values are compared alone:
    what Adam makes of gradients that are nothing but rounding is as large as any update.
    """
    if pair.index > 0 and not ruler.is_exact:
        return
    before, now = list_values(pair.baseline, pair.index), list_values(pair.observed, pair.index)
    names = [
        name
        for name, other in now.items()
        if (one := before.get(name)) is not None and not _is_same(one, other, pair, ruler)
    ]
    held = {
        name for trajectory in (pair.baseline, pair.observed) for row in trajectory.parameters for name in row
    }
    found = [
        _describe(pair, names_of, before, now, is_held=is_held)
        for is_held in (True, False)
        if (names_of := [name for name in names if (name in held) is is_held])
    ]
    yield from found
    if ruler.is_exact and not any(difference.moves for difference in found):
        yield from _compare_norms(pair, pair.index)
        yield from (found for later in _list_next(pair) for found in _compare_norms(pair, later))


def _describe(
    pair: Pair,
    names: list[str],
    before: dict[str, TensorPoint],
    now: dict[str, TensorPoint],
    *,
    is_held: bool,
) -> Difference:
    """Parameters that differ; of those that no optimizer holds, it depends on the use that is made of them."""
    norms = [(before[name].weight_norm, now[name].weight_norm) for name in names]
    # What the others become after their first values follows from updates: an average, a copy now and then.
    known = {
        tensor.name
        for deep in pair.baseline.deep
        if deep.step < pair.before.step
        for tensor in (*deep.still, *deep.tensors)
    }
    phase_of_still = Phase.INITIALISATION if known.isdisjoint(names) else Phase.OPTIMIZER
    phase = _place(pair, norms) if is_held else phase_of_still
    change = tell_norms(*([values[name].weight_norm for name in names] for values in (before, now)))
    item = f"{VALUES_OF} {name_group(names)}"
    return Difference(phase, item, change, tuple(names), moves=is_held, is_beside=not is_held)


def _compare_norms(pair: Pair, index: int) -> Iterator[Difference]:
    """Whether the norm of all parameters differs before a step, the one of the pair or a later one."""
    step = Pair(pair.baseline, pair.observed, index)
    one, other = step.before.weight_norm, step.now.weight_norm
    if one is None or other is None or one == other or _holds_others(step):
        return
    phase = _place(step, [(one, other)])
    # What is seen later may have been written later: it explains a difference, and is none by itself.
    change = tell_ratio("norm", one, other)
    yield Difference(phase, f"{VALUES_OF} the parameters", change, ("*",), moves=index == pair.index)


def _list_next(pair: Pair) -> Iterator[int]:
    """The next steps of other optimizers, whose parameters are what they are now until then.

    Not those that hold parameters which others move meanwhile, nor those that take their first step late: they
    may be made then, for a model that is built or loaded then.
    """
    points = pair.baseline.points
    known = {index for point in points[: pair.index] for index in point.optimizers}
    stepped = set(pair.before.optimizers)
    moved = set(pair.baseline.list_tensors(pair.before))
    num_common = min(len(points), len(pair.observed.points))
    for index in range(pair.index + 1, num_common):
        if len(stepped) >= len(pair.baseline.parameters):
            return
        stepping = set(points[index].optimizers)
        if stepping != set(pair.observed.points[index].optimizers):
            return
        tensors = set(pair.baseline.list_tensors(points[index]))
        is_there = stepping <= known or index <= MAX_WAIT
        if is_there and not stepping & stepped and not tensors & moved:
            yield index
        stepped |= stepping
        moved |= tensors


def list_values(trajectory: Trajectory, index: int) -> dict[str, TensorPoint]:
    """The parameters known before a step, by name, those that no optimizer holds among them.

    In the first step all first values count that are known: those of an optimizer that has not stepped yet are seen
    when it does.
    """
    if index > 0:
        deep = trajectory.find_deep(trajectory.points[index].step)
        return {tensor.name: tensor for tensor in (*deep.still, *deep.tensors)} if deep is not None else {}
    found: dict[str, TensorPoint] = {}
    moved: set[str] = set()
    for point in trajectory.points:
        deep = trajectory.find_deep(point.step)
        if deep is None:
            break
        for tensor in (*deep.tensors, *deep.still):
            if tensor.name not in moved:
                found.setdefault(tensor.name, tensor)
        moved.update(trajectory.list_tensors(point))
    return found


def _is_same(one: TensorPoint, other: TensorPoint, pair: Pair, ruler: Ruler) -> bool:
    if ruler.is_exact and one.contents and other.contents:
        return one.contents == other.contents
    return ruler.is_same(one.weight_norm, other.weight_norm, pair.index)


def _place(pair: Pair, norms: list[tuple[float | None, float | None]]) -> Phase:
    """The phase of values that differ before a step.

    What is done to parameters from their first update on, as clamping them, belongs to the update; values that they
    get later were set anew.
    """
    optimizers = set(pair.before.optimizers)
    num_updates = sum(
        bool(optimizers & set(point.optimizers)) for point in pair.baseline.points[: pair.index]
    )
    if num_updates == 0:
        return Phase.INITIALISATION
    if num_updates == 1 or all(None not in both and is_rounding(*both) for both in norms):
        return Phase.OPTIMIZER
    return Phase.INITIALISATION


def _holds_others(pair: Pair) -> bool:
    """Whether the optimizers of the step hold other tensors, so that the norms of all are of different things."""
    before, now = pair.baseline.list_tensors(pair.before), pair.observed.list_tensors(pair.now)
    return set(before) != set(now)


def tell_written(found: Difference) -> str:
    """That parameters were written to between two steps."""
    return (
        f"{name_group(found.names)} {agree(found.names, 'differs', 'differ')} after the same updates: written to "
        "between the steps, outside of the optimizer (clamped, averaged, loaded, reset)"
    )
