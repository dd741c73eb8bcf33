"""What differs behind the backward pass of a step: gradients, clipping, rates and updates."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from harness.baselines.names import name_group
from harness.baselines.pairs import Difference, is_rounding, tell_norms, tell_ratio
from harness.baselines.ruler import is_same_rate, measure_distance
from harness.baselines.trajectory import Phase
from harness.baselines.trajectory_json import NO_GRADIENT, NOT_FINITE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.baselines.pairs import Pair
    from harness.baselines.ruler import Ruler
    from harness.baselines.trajectory import DeepPoint, TracePoint


CLIPPED, FOUND = "gradients after clipping", "norm that clipping finds"
UNCLIPPED = "unclipped"
"""Fingerprints of gradients before clipping; where no step clips, they are those that the optimizers got."""


def compare_gradients(pair: Pair, ruler: Ruler) -> Iterator[Difference]:
    """Gradients, and what clipping made of them."""
    before, now = pair.before, pair.now
    if before.was_skipped and now.was_skipped:
        # They are not finite, and thrown away.
        return
    if ruler.is_exact and all(map(_knows_unclipped, (before, now))):
        yield from _compare_known(pair, ruler)
        return
    names = list_differing(pair, "gradients") if ruler.is_exact else _list_scaled(pair, ruler)
    has_same_tensors = _has_same_tensors(pair)
    is_same_norm = _is_same_norm(before.grad_norm, now.grad_norm, pair, ruler)
    is_same_clipped = _is_same_norm(before.clipped_norm, now.clipped_norm, pair, ruler)
    if not names and ((is_same_norm and is_same_clipped) or not has_same_tensors):
        # The norm of other tensors is another one.
        return
    can_tell = before.grad_norm is not None and now.grad_norm is not None
    is_told_apart = is_same_norm and not is_same_clipped
    if can_tell and has_same_tensors and (is_told_apart or _is_clipped_elsewhere(pair, names, ruler)):
        values = (
            (before.clipped_norm, now.clipped_norm) if is_told_apart else (before.grad_norm, now.grad_norm)
        )
        yield Difference(
            Phase.CLIPPING, CLIPPED if is_told_apart else FOUND, tell_ratio("norm", *values), names
        )
        return
    yield _describe_gradients(pair, names)


def _knows_unclipped(point: TracePoint) -> bool:
    """Whether the gradients of a step are known as they were before the program clipped them."""
    if point.unclipped:
        return True
    norms = point.grad_norm, point.clipped_norm
    return bool(point.gradients) and None not in norms and is_rounding(*norms)


def _compare_known(pair: Pair, ruler: Ruler) -> Iterator[Difference]:
    """Gradients before clipping; where these are the same, what clipping finds, and what the optimizers got."""
    if names := list_differing(pair, UNCLIPPED):
        yield _describe_gradients(pair, names)
        return
    before, now = pair.before, pair.now
    names = list_differing(pair, "gradients")
    is_clipped = bool(before.unclipped and now.unclipped) and None not in (before.grad_norm, now.grad_norm)
    if is_clipped and not _is_same_norm(before.grad_norm, now.grad_norm, pair, ruler):
        if _has_same_tensors(pair):
            change = tell_ratio("norm", before.grad_norm, now.grad_norm)
            # Where the bound is above both norms, the optimizers get the same.
            yield Difference(Phase.CLIPPING, FOUND, change, names, moves=bool(names))
    elif names:
        change = tell_ratio("norm", before.clipped_norm, now.clipped_norm)
        yield Difference(Phase.CLIPPING, CLIPPED, change, names)


def _describe_gradients(pair: Pair, names: tuple[str, ...]) -> Difference:
    before, now = pair.before, pair.now
    of_all = before.grad_norm or before.clipped_norm, now.grad_norm or now.clipped_norm
    return _describe(Phase.GRADIENTS, "gradient", names, of_all, list_gradient_norms(pair))


def list_lost(pair: Pair) -> list[str]:
    """Tensors that get no gradient any more, as the fingerprints of the step tell where there is one of each."""
    before, now = _list_marks(pair, "gradients")
    marks = dict(before)
    return [name for name, mark in now if mark == NO_GRADIENT and marks.get(name, NO_GRADIENT) != NO_GRADIENT]


def _is_clipped_elsewhere(pair: Pair, names: tuple[str, ...], ruler: Ruler) -> bool:
    """Whether the program clips other gradients, or at another moment, and the gradients themselves are the same.

    The optimizer gets the very gradients of the baseline, though clipping found another norm; or it gets now what
    the baseline had before clipping.
    """
    before, now = pair.before, pair.now
    if (
        before.grad_norm is None
        or now.grad_norm is None
        or not math.isfinite(before.grad_norm + now.grad_norm)
    ):
        return False
    if _is_same_norm(before.grad_norm, now.grad_norm, pair, ruler):
        return False
    if not names:
        return ruler.is_exact and bool(before.gradients) and bool(now.gradients)
    return any(
        one.grad_norm is not None
        and other.clipped_norm is not None
        and one.grad_norm != one.clipped_norm
        and _is_same_norm(one.grad_norm, other.clipped_norm, pair, ruler)
        for one, other in ((before, now), (now, before))
    )


def _has_same_tensors(pair: Pair) -> bool:
    """Whether the optimizers of a step hold the same tensors, as far as names tell."""
    before, now = pair.baseline.list_tensors(pair.before), pair.observed.list_tensors(pair.now)
    return not before or not now or set(before) == set(now)


def _list_scaled(pair: Pair, ruler: Ruler) -> tuple[str, ...]:
    """Tensors whose gradients, before clipping, differ by far more than rounding can make of them."""
    tolerance = max(SCALED_TENSORS, SCALED_FACTOR * ruler.find_allowed(pair.index))
    before, now = list_gradient_norms(pair)
    total = max(before.values(), default=0.0)
    return tuple(
        name
        for name, norm in now.items()
        if (earlier := before.get(name)) is not None
        and earlier > SCALED_SHARE * total
        and measure_distance(earlier, norm) > tolerance
    )


SCALED_TENSORS, SCALED_FACTOR, SCALED_SHARE = 0.05, 20.0, 1e-2


def list_gradient_norms(pair: Pair) -> tuple[dict[str, float], dict[str, float]]:
    """The gradient norm of every tensor before clipping, in the baseline and in the run, by name.

    Empty where one of them was not watched in depth.
    """
    if pair.deep is None:
        return {}, {}
    # In baselines of earlier versions all gradients count as clipped together, and then in both.
    read = _list_norms if all(map(_knows_unclipped, (pair.before, pair.now))) else _unclip
    return read(pair.deep[0], pair.before), read(pair.deep[1], pair.now)


def _list_norms(deep: DeepPoint, _point: TracePoint) -> dict[str, float]:
    return {
        tensor.name: norm if tensor.unclipped_norm is None else tensor.unclipped_norm
        for tensor in deep.tensors
        if (norm := tensor.grad_norm) is not None
    }


def _unclip(deep: DeepPoint, point: TracePoint) -> dict[str, float]:
    factor = 1.0
    if point.grad_norm and point.clipped_norm and math.isfinite(point.grad_norm + point.clipped_norm):
        factor = point.grad_norm / point.clipped_norm
    return {tensor.name: tensor.grad_norm * factor for tensor in deep.tensors if tensor.grad_norm is not None}


def _is_same_norm(one: float | None, other: float | None, pair: Pair, ruler: Ruler) -> bool:
    # A program that clips tells the norm itself, and sums it up in an order of its own.
    return is_rounding(one, other) or (not ruler.is_exact and ruler.is_same(one, other, pair.index))


def list_differing(pair: Pair, kind: str) -> tuple[str, ...]:
    """Names of the tensors whose fingerprints of a kind differ, of those that both steps have.

    `*` where only all together have one, and nothing where these are not of the same tensors.
    """
    before, now = (_list_fingerprints(point, kind) for point in (pair.before, pair.now))
    if not before or not now or (before == now and NOT_FINITE not in now):
        return ()
    earlier, later = _list_marks(pair, kind)
    if not later:
        return ("*",) if _has_same_tensors(pair) else ()
    marks = dict(earlier)
    return tuple(name for name, mark in later if marks.get(name, mark) != mark or mark == NOT_FINITE)


def _list_fingerprints(point: TracePoint, kind: str) -> tuple[str, ...]:
    found: tuple[str, ...] = getattr(point, kind)
    return found or point.gradients if kind == UNCLIPPED else found


Marks = list[tuple[str, str]]


def _list_marks(pair: Pair, kind: str) -> tuple[Marks, Marks]:
    """Name and fingerprint of each tensor in both steps; nothing where one of them has not one of each."""
    steps = ((pair.baseline, pair.before), (pair.observed, pair.now))
    names = [trajectory.list_tensors(point) for trajectory, point in steps]
    marks = [_list_fingerprints(point, kind) for _, point in steps]
    if any(len(one) != len(other) for one, other in zip(names, marks, strict=True)):
        return [], []
    before, now = (list(zip(*both, strict=True)) for both in zip(names, marks, strict=True))
    return before, now


def compare_rates(pair: Pair) -> Iterator[Difference]:
    """The learning rate of every group that stepped."""
    before, now = pair.before.learning_rates, pair.now.learning_rates
    if len(before) != len(now):
        yield Difference(
            Phase.OPTIMIZER, "parameter groups that stepped", f"{len(before)} -> {len(now)}", moves=False
        )
        return
    for group, (one, other) in enumerate(zip(before, now, strict=True)):
        if not is_same_rate(one, other):
            name = f"learning rate of group {group}" if len(before) > 1 else "learning rate"
            yield Difference(Phase.SCHEDULE, name, tell_ratio("", one, other), (str(group),))


def compare_updates(pair: Pair, ruler: Ruler) -> Iterator[Difference]:
    """Which optimizers stepped, and by how much they changed their parameters."""
    if pair.before.optimizers != pair.now.optimizers:
        yield Difference(
            Phase.OPTIMIZER, "optimizers that stepped", f"{pair.before.optimizers} -> {pair.now.optimizers}"
        )
    if not ruler.is_exact:
        return
    names = list_differing(pair, "updates")
    if names:
        of_all = pair.before.update_norm, pair.now.update_norm
        yield _describe(Phase.OPTIMIZER, "update", names, of_all, _list_update_norms(pair))


def _describe(
    phase: Phase,
    what: str,
    names: tuple[str, ...],
    of_all: tuple[float | None, float | None],
    of_tensors: tuple[dict[str, float], dict[str, float]],
) -> Difference:
    """The tensors that differ, with their norms where both steps were watched in depth, or else that of all."""
    if not names or names == ("*",):
        return Difference(phase, f"{what}s", tell_ratio("norm", *of_all), names)
    before, now = of_tensors
    if any(name not in before and name not in now for name in names):
        change = tell_ratio("norm of all", *of_all)
    else:
        change = tell_norms([before.get(name) for name in names], [now.get(name) for name in names])
    return Difference(phase, f"{what} of {name_group(names)}", change, names)


def _list_update_norms(pair: Pair) -> tuple[dict[str, float], dict[str, float]]:
    """The norm of the update of every tensor, as `list_gradient_norms` gives that of its gradient."""
    if pair.deep is None:
        return {}, {}
    return _map_update_norms(pair.deep[0]), _map_update_norms(pair.deep[1])


def _map_update_norms(deep: DeepPoint) -> dict[str, float]:
    return {tensor.name: tensor.update_norm for tensor in deep.tensors if tensor.update_norm is not None}
