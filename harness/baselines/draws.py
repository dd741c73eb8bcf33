"""Tells other draws of the same distribution from another distribution, by the first values of parameters."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from harness.baselines.batches import is_scaled
from harness.baselines.parameter_differences import list_values
from harness.baselines.trajectory import Phase

if TYPE_CHECKING:
    from harness.baselines.pairs import Pair
    from harness.baselines.trajectory import TensorPoint, Trajectory

SPREAD = 5.0
"""How many standard deviations the norms of two draws of one distribution may differ by."""
CONSTANT_TOLERANCE = 1e-5


def choose_drawn(pair: Pair) -> Phase:
    """Parameters and generators differ: another distribution, or other draws of the same one.

    Draws of one distribution have norms that differ by chance only, and all of a model differ: a tensor that is
    drawn, and is the same, was drawn before the streams parted. They may part between two models.
    """
    before, now = list_values(pair.baseline, pair.index), list_values(pair.observed, pair.index)
    if _is_copied(before, pair) != _is_copied(now, pair):
        return Phase.INITIALISATION
    pairs = [(before[name], tensor) for name, tensor in now.items() if name in before]
    filled = [tuple(_is_constant(tensor, pair) for tensor in both) for both in pairs]
    if any(one != other for one, other in filled):
        return Phase.INITIALISATION
    drawn = [both for both, (is_constant, _) in zip(pairs, filled, strict=True) if not is_constant]
    same: dict[str, set[bool]] = {}
    for one, other in drawn:
        same.setdefault(_find_model(other.name, pair), set()).add(one.contents == other.contents)
    if any(len(found) > 1 for found in same.values()):
        return Phase.INITIALISATION
    if any(_has_other_scale(one, other, pair) for one, other in drawn):
        return Phase.INITIALISATION
    return Phase.RNG


def _is_copied(values: dict[str, TensorPoint], pair: Pair) -> bool:
    """Whether tensors of one model begin with the values of another, as a teacher's do."""
    models: dict[str, set[str]] = {}
    for name, tensor in values.items():
        if tensor.contents and not _is_constant(tensor, pair):
            models.setdefault(tensor.contents, set()).add(_find_model(name, pair))
    return any(len(found) > 1 for found in models.values())


def _find_model(name: str, pair: Pair) -> str:
    """What a tensor was drawn together with: its model where there are several, or all that an optimizer holds."""
    first = name.partition(".")[0]
    deep = pair.deep
    if deep is not None and deep[1].outputs:
        models = {tensor.name.partition(".")[0] for tensor in (*deep[1].tensors, *deep[1].still)}
        # Of a single model, the outermost module has a name that none of its parameters has.
        if models.issuperset(module.partition(".")[0] for module in deep[1].outputs):
            return first
    if not pair.observed.parameters:
        return ""
    holding = (index for index, names in enumerate(pair.observed.parameters) if name in names)
    return f"optimizer {index}" if (index := next(holding, None)) is not None else first


def _is_constant(tensor: TensorPoint, pair: Pair) -> bool:
    """Whether a tensor was filled with zeros or ones."""
    norm, count = tensor.weight_norm, count_elements(pair.observed, tensor.name)
    return not norm or (count is not None and abs(norm * norm - count) <= CONSTANT_TOLERANCE * count)


def _has_other_scale(one: TensorPoint, other: TensorPoint, pair: Pair) -> bool:
    count = count_elements(pair.observed, other.name) or 1
    # The norm of n draws varies by about one part in the root of 2 n.
    return is_scaled(one.weight_norm, other.weight_norm, math.exp(SPREAD / math.sqrt(2 * count)))


def count_elements(trajectory: Trajectory, name: str) -> int | None:
    """The numbers in a parameter; None where its shape is not known."""
    text = str(trajectory.settings.get(Phase.INITIALISATION, {}).get(name, "")).partition(" ")[0]
    if text == "scalar":
        return 1
    try:
        return math.prod(int(size) for size in text.split("x"))
    except ValueError:
        return None
