"""All that differs between two runs in one step, phase by phase."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harness.baselines.ruler import is_same_rate, measure_distance
from harness.baselines.trajectory import DeepPoint, Phase
from harness.baselines.trajectory_json import NOT_FINITE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.baselines.ruler import Ruler
    from harness.baselines.trajectory import LossPoint, TracePoint, Trajectory

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
TORCH_GENERATORS = ("torch", "cuda")


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that differs in a step.

    Attributes:
        item: What it is, as users know it.
        change: Both values.
        names: Tensors or modules that differ, in their order.
        moves: Whether it moves the training: a generator in another state, or a field of a batch that nothing
            uses, alone does not.
    """

    phase: Phase
    item: str
    change: str
    names: tuple[str, ...] = ()
    moves: bool = True


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


def list_differences(pair: Pair, ruler: Ruler, used: frozenset[str] = frozenset()) -> list[Difference]:
    """What differs in a step, in the order in which a step passes its phases.

    Args:
        pair: The step.
        ruler: What counts as the same.
        used: Generators besides torch's own that the training draws from.
    """
    found = [
        *_compare_data(pair, ruler),
        *_compare_generators(pair, used),
        *_compare_parameters(pair, ruler),
        *_compare_forward(pair, ruler),
        *_compare_loss(pair, ruler),
        *_compare_gradients(pair, ruler),
        *_compare_rates(pair),
        *_compare_updates(pair, ruler),
    ]
    found.sort(key=lambda difference: LADDER.index(difference.phase))
    if pair.index == 0:
        return found
    # Parameters that differ in a later step, after the same updates, were written to since.
    return [
        replace(difference, phase=Phase.OPTIMIZER) if difference.phase is Phase.INITIALISATION else difference
        for difference in found
    ]


def _compare_data(pair: Pair, ruler: Ruler) -> Iterator[Difference]:
    before, now = pair.before, pair.now
    if before.shapes != now.shapes:
        yield Difference(
            Phase.DATA, "shape of the batch", f"{before.shapes or 'none'} -> {now.shapes or 'none'}"
        )
        return
    moved = _describe_inputs(pair, CONTENTS_TOLERANCE if not ruler.is_exact else 0.0)
    if not ruler.is_exact:
        if moved:
            yield Difference(Phase.DATA, CALLED_WITH, moved)
        return
    if not before.batch or not now.batch:
        return
    given, first, *others = zip(before.batch.split(), now.batch.split(), strict=False)
    if given[0] != given[1]:
        yield Difference(Phase.DATA, "batch that the loader gave", moved or OTHER_CONTENTS, moves=False)
    elif first[0] != first[1]:
        yield Difference(Phase.DATA, CALLED_WITH, moved or OTHER_CONTENTS, moves=False)
    elif any(one != other for one, other in others) and _is_first_same(pair):
        yield Difference(Phase.DATA, "a later micro-batch", OTHER_CONTENTS, moves=False)


CALLED_WITH, OTHER_CONTENTS = "batch that the model was called with", "other contents"


def _is_first_same(pair: Pair) -> bool:
    """Whether the first micro-batch went the same way, as far as is known: its draws come before the next batch."""
    if pair.deep is None:
        return True
    before, now = pair.deep
    values = [(one.value, other.value) for one, other in zip(before.losses[:1], now.losses[:1], strict=False)]
    return before.outputs == now.outputs and all(one == other for one, other in values)


def _describe_inputs(pair: Pair, tolerance: float) -> str:
    """How the numbers that the model was called with have changed; empty where they have not, or nothing tells."""
    if pair.deep is None:
        return ""
    before, now = pair.deep
    for earlier, later in zip(before.inputs, now.inputs, strict=False):
        if earlier.dtype != later.dtype:
            return f"type {earlier.dtype} -> {later.dtype}"
        scale = max(abs(earlier.std or 0.0), abs(later.std or 0.0), abs(earlier.mean or 0.0), 1e-12)
        moved = [
            f"{name} {one:.4g} -> {other:.4g}"
            for name in ("minimum", "maximum", "mean", "std")
            if (one := getattr(earlier, name)) is not None
            and (other := getattr(later, name)) is not None
            and one != other
            and abs(one - other) > tolerance * scale
        ]
        if moved:
            return ", ".join(moved)
    return ""


def _compare_generators(pair: Pair, used: frozenset[str]) -> Iterator[Difference]:
    before, now = pair.before.generators, pair.now.generators
    if not before or not now:
        return
    moved = [
        name
        for name in sorted(before.keys() & now.keys())
        if before[name] != now[name] and (name in TORCH_GENERATORS or name in used)
    ]
    if moved:
        item = f"generator{'s' if len(moved) > 1 else ''} of {' and '.join(moved)}"
        yield Difference(Phase.RNG, item, "in another state when the step begins", tuple(moved), moves=False)


def _compare_parameters(pair: Pair, ruler: Ruler) -> Iterator[Difference]:
    if pair.deep is None:
        return
    before = {tensor.name: tensor for tensor in pair.deep[0].tensors}
    now = {tensor.name: tensor for tensor in pair.deep[1].tensors}
    names = []
    for name, other in now.items():
        if (one := before.get(name)) is None:
            continue
        if ruler.is_exact and one.contents and other.contents:
            is_same = one.contents == other.contents
        else:
            is_same = ruler.is_same(one.weight_norm, other.weight_norm, pair.index)
        if not is_same:
            names.append(name)
    if names:
        first = names[0]
        change = tell_ratio("norm", before[first].weight_norm, now[first].weight_norm)
        yield Difference(Phase.INITIALISATION, f"{VALUES_OF} `{first}`", change, tuple(names))


def _compare_forward(pair: Pair, ruler: Ruler) -> Iterator[Difference]:
    if pair.deep is None:
        return
    before, now = pair.deep
    if before.in_eval_mode != now.in_eval_mode:
        names = sorted(set(before.in_eval_mode) ^ set(now.in_eval_mode))
        mode = "eval" if set(now.in_eval_mode) > set(before.in_eval_mode) else "training"
        yield Difference(Phase.FORWARD, f"mode of `{names[0]}`", f"now in {mode} mode", tuple(names))
    if before.autocast != now.autocast:
        yield Difference(Phase.FORWARD, "autocast", f"{before.autocast or 'off'} -> {now.autocast or 'off'}")
    if ruler.is_exact:
        names = [name for name, output in now.outputs.items() if before.outputs.get(name, output) != output]
        if names and not _is_loss_alone(before, now):
            yield Difference(Phase.FORWARD, f"output of `{names[0]}`", "other values", tuple(names))


def _is_loss_alone(before: DeepPoint, now: DeepPoint) -> bool:
    """Whether outputs differ because a model returns its loss: what its loss functions were given is the same."""
    calls = list(zip(before.losses, now.losses, strict=False))
    return (
        bool(calls)
        and all(one.inputs and one.inputs == other.inputs for one, other in calls)
        and any(one.value != other.value for one, other in calls)
    )


def _compare_loss(pair: Pair, ruler: Ruler) -> Iterator[Difference]:
    before, now = pair.before, pair.now
    if before.num_micro_batches != now.num_micro_batches:
        yield Difference(
            Phase.LOSS, "micro-batches of a step", f"{before.num_micro_batches} -> {now.num_micro_batches}"
        )
    if pair.deep is not None:
        for one, other in zip(pair.deep[0].losses, pair.deep[1].losses, strict=False):
            yield from _compare_loss_call(one, other, pair, ruler)
        scales = pair.deep[0].loss_scale, pair.deep[1].loss_scale
        if scales[0] != scales[1]:
            yield Difference(Phase.LOSS, "scale of the GradScaler", f"{scales[0]} -> {scales[1]}")
    if not ruler.is_same(before.loss, now.loss, pair.index):
        yield Difference(_place_loss(pair), "loss", tell_ratio("", before.loss, now.loss))
    if before.was_skipped != now.was_skipped:
        yield Difference(
            Phase.LOSS, "step of the GradScaler", "now skipped" if now.was_skipped else "no longer skipped"
        )


def _place_loss(pair: Pair) -> Phase:
    """The phase a loss belongs to that differs: its own, where what it is computed from is known to be the same."""
    if pair.deep is None:
        return Phase.FORWARD
    before, now = pair.deep
    outputs = [
        output == before.outputs[name] for name, output in now.outputs.items() if name in before.outputs
    ]
    inputs = [
        one.inputs == other.inputs
        for one, other in zip(before.losses, now.losses, strict=False)
        if one.inputs and other.inputs
    ]
    is_same = any(all(known) for known in (outputs, inputs) if known)
    return Phase.LOSS if is_same else Phase.FORWARD


def _compare_loss_call(one: LossPoint, other: LossPoint, pair: Pair, ruler: Ruler) -> Iterator[Difference]:
    if one.name != other.name:
        yield Difference(Phase.LOSS, "loss function", f"{one.name} -> {other.name}")
        return
    if ruler.is_exact and one.targets and other.targets and one.targets != other.targets:
        yield Difference(Phase.LOSS, f"targets of {one.name}", "other values", ("targets",))
    if ruler.is_exact and one.inputs and other.inputs and one.inputs != other.inputs:
        yield Difference(Phase.FORWARD, f"inputs of {one.name}", "other values")
    elif not ruler.is_same(one.value, other.value, pair.index):
        phase = Phase.LOSS if one.inputs and one.inputs == other.inputs else _place_loss(pair)
        yield Difference(phase, f"value of {one.name}", tell_ratio("", one.value, other.value))
    if (
        one.scale is not None
        and other.scale is not None
        and measure_distance(one.scale, other.scale) > SAME_TENSORS
    ):
        change = tell_ratio("", one.scale, other.scale)
        yield Difference(Phase.LOSS, f"scale with which {one.name} reaches the gradient", change)


def _compare_gradients(pair: Pair, ruler: Ruler) -> Iterator[Difference]:
    before, now = pair.before, pair.now
    if before.was_skipped and now.was_skipped:
        # They are not finite, and thrown away.
        return
    names = _list_differing(pair, "gradients") if ruler.is_exact else _list_scaled(pair, ruler)
    is_same_norm = _is_same_norm(before.grad_norm, now.grad_norm, pair, ruler)
    is_same_clipped = _is_same_norm(before.clipped_norm, now.clipped_norm, pair, ruler)
    if not names and is_same_norm and is_same_clipped:
        return
    can_tell = before.grad_norm is not None and now.grad_norm is not None
    if can_tell and is_same_norm and not is_same_clipped:
        change = tell_ratio("norm", before.clipped_norm, now.clipped_norm)
        yield Difference(Phase.CLIPPING, "gradients after clipping", change, names)
        return
    change = tell_ratio("norm", before.grad_norm or before.clipped_norm, now.grad_norm or now.clipped_norm)
    item = "gradients" if len(names) != 1 else f"gradient of `{names[0]}`"
    yield Difference(Phase.GRADIENTS, item, change, names)


def _list_scaled(pair: Pair, ruler: Ruler) -> tuple[str, ...]:
    """Tensors whose gradients, before clipping, differ by far more than rounding can make of them."""
    if pair.deep is None:
        return ()
    tolerance = max(SCALED_TENSORS, SCALED_FACTOR * ruler.find_allowed(pair.index))
    before, now = unclip(pair.deep[0], pair.before), unclip(pair.deep[1], pair.now)
    total = max(before.values(), default=0.0)
    return tuple(
        name
        for name, norm in now.items()
        if (earlier := before.get(name)) is not None
        and earlier > SCALED_SHARE * total
        and measure_distance(earlier, norm) > tolerance
    )


SCALED_TENSORS, SCALED_FACTOR, SCALED_SHARE = 0.05, 20.0, 1e-2


def unclip(deep: DeepPoint, point: TracePoint) -> dict[str, float]:
    """The gradient norm of every tensor before clipping, by name."""
    factor = 1.0
    if point.grad_norm and point.clipped_norm:
        factor = point.grad_norm / point.clipped_norm
    return {tensor.name: tensor.grad_norm * factor for tensor in deep.tensors if tensor.grad_norm is not None}


def _is_same_norm(one: float | None, other: float | None, pair: Pair, ruler: Ruler) -> bool:
    if one is None or other is None:
        return True
    # A program that clips tells the norm itself, and sums it up in an order of its own.
    close = measure_distance(one, other) <= SAME_TENSORS
    return close if ruler.is_exact else close or ruler.is_same(one, other, pair.index)


def _list_differing(pair: Pair, kind: str) -> tuple[str, ...]:
    """Names of the tensors whose fingerprints of a kind differ; `*` where only all together have one."""
    before, now = getattr(pair.before, kind), getattr(pair.now, kind)
    if not before or not now or before == now:
        return ()
    names = pair.baseline.list_tensors(pair.before), pair.observed.list_tensors(pair.now)
    if len(before) != len(names[0]) or len(now) != len(names[1]):
        return ("*",)
    marks = dict(zip(names[0], before, strict=True))
    found = tuple(
        name
        for name, mark in zip(names[1], now, strict=True)
        if marks.get(name, mark) != mark or mark == NOT_FINITE
    )
    # In another order the same tensors have the same fingerprints.
    return found or (() if set(names[0]) == set(names[1]) else ("*",))


def _compare_rates(pair: Pair) -> Iterator[Difference]:
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


def _compare_updates(pair: Pair, ruler: Ruler) -> Iterator[Difference]:
    if pair.before.optimizers != pair.now.optimizers:
        yield Difference(
            Phase.OPTIMIZER, "optimizers that stepped", f"{pair.before.optimizers} -> {pair.now.optimizers}"
        )
    if not ruler.is_exact:
        return
    names = _list_differing(pair, "updates")
    if names:
        item = f"update of `{names[0]}`" if names != ("*",) else "updates"
        change = tell_ratio("norm", pair.before.update_norm, pair.now.update_norm)
        yield Difference(Phase.OPTIMIZER, item, change, names)


def tell_ratio(what: str, baseline: float | None, observed: float | None) -> str:
    """Two numbers for people: `norm 0.41 -> 0.82, x2.00`."""
    if baseline is None or observed is None:
        one, other = ("none" if value is None else f"{value:.6g}" for value in (baseline, observed))
        return f"{what} {one} -> {other}".strip()
    digits = 4 if measure_distance(baseline, observed) > CONTENTS_TOLERANCE else 9
    text = f"{what} {baseline:.{digits}g} -> {observed:.{digits}g}".strip()
    if not baseline or not observed or baseline * observed < 0 or observed - observed != 0:
        return text
    ratio = observed / baseline
    shown = f"x{ratio:.3g}" if abs(ratio - 1) >= 0.1 else f"{ratio - 1:+.2g} relative"  # noqa: PLR2004  a tenth
    return f"{text}, {shown}"
