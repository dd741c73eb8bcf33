"""What differs in the forward pass of a step, and in its loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.baselines.calls_in_order import has_other_outputs
from harness.baselines.pairs import MODE, SAME_TENSORS, Difference, tell_ratio
from harness.baselines.ruler import measure_distance
from harness.baselines.trajectory import Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.baselines.pairs import Pair
    from harness.baselines.ruler import Ruler
    from harness.baselines.trajectory import DeepPoint, LossPoint

INPUTS_OF, LOSS = "inputs of", "loss"
MICRO_BATCHES, SCALER_STEP = "micro-batches of a step", "step of the GradScaler"


def compare_forward(pair: Pair, ruler: Ruler) -> Iterator[Difference]:
    """Modes, precision, and what modules gave."""
    if pair.deep is None:
        yield from _compare_calls(pair)
        return
    before, now = pair.deep
    if before.in_eval_mode != now.in_eval_mode and _share_names(before, now):
        names = sorted(set(before.in_eval_mode) ^ set(now.in_eval_mode))
        mode = "eval" if set(now.in_eval_mode) > set(before.in_eval_mode) else "training"
        yield Difference(Phase.FORWARD, f"{MODE} `{names[0]}`", f"now in {mode} mode", tuple(names))
    else:
        yield from _compare_calls(pair)
    if before.autocast != now.autocast:
        yield Difference(Phase.FORWARD, "autocast", f"{before.autocast or 'off'} -> {now.autocast or 'off'}")
    if ruler.is_exact:
        names = _list_outputs(before, now)
        if names and not _is_loss_alone(before, now):
            yield Difference(Phase.FORWARD, f"output of `{names[0]}`", "other values", tuple(names))


def _compare_calls(pair: Pair) -> Iterator[Difference]:
    """Whether models that train are called in eval mode; that alone does not move a training without dropout."""
    before, now = pair.before.num_eval_calls, pair.now.num_eval_calls
    if pair.has_other_eval_calls and pair.before.shapes == pair.now.shapes:
        # An evaluation between the steps, or one model beside another that is in training mode as before.
        yield Difference(Phase.FORWARD, "calls in eval mode", f"{before} -> {now}", moves=False)
    elif pair.is_in_other_mode:
        is_eval = not pair.now.shapes if pair.lacks_training_calls else (now or 0) > (before or 0)
        mode = "eval" if is_eval else "training"
        yield Difference(Phase.FORWARD, f"{MODE} the model", f"now in {mode} mode", moves=False)


def _share_names(before: DeepPoint, now: DeepPoint) -> bool:
    """Whether most modules have one name in both runs, so that what is known of them can be compared.

    Models get other names where one more trains beside them, and had others in baselines of earlier versions; a name
    that both have may be that of another model then.
    """
    num_common = len(before.outputs.keys() & now.outputs.keys())
    return before.outputs.keys() == now.outputs.keys() or 2 * num_common > max(
        len(before.outputs), len(now.outputs)
    )


def _list_outputs(before: DeepPoint, now: DeepPoint) -> list[str]:
    return [name for name, output in now.outputs.items() if before.outputs.get(name, output) != output]


def _is_loss_alone(before: DeepPoint, now: DeepPoint) -> bool:
    """Whether outputs differ only because a model returns its loss.

    What its loss functions were given is the same, or there are other ones and all modules inside gave the same.
    """
    calls = list(zip(before.losses, now.losses, strict=False))
    if [call.name for call in before.losses] != [call.name for call in now.losses]:
        outermost = list(now.outputs)[-1:]
        return len(now.outputs) > 1 and _list_outputs(before, now) == outermost
    return (
        bool(calls)
        and all(one.inputs and one.inputs == other.inputs for one, other in calls)
        and any(one.value != other.value for one, other in calls)
    )


def has_same_outputs(pair: Pair) -> bool:
    """Whether all modules are known to have given the same, but for a loss that a model returns."""
    if pair.deep is None or has_other_outputs(pair):
        return False
    before, now = pair.deep
    if not before.outputs or not _share_names(before, now):
        return False
    return not _list_outputs(before, now) or _is_loss_alone(before, now)


def compare_loss(pair: Pair, ruler: Ruler) -> Iterator[Difference]:
    """Micro-batches, loss functions with their targets and scales, and the loss itself."""
    before, now = pair.before, pair.now
    if before.num_micro_batches != now.num_micro_batches:
        yield Difference(Phase.LOSS, MICRO_BATCHES, f"{before.num_micro_batches} -> {now.num_micro_batches}")
    if pair.deep is not None:
        calls = zip(pair.deep[0].losses, pair.deep[1].losses, strict=False)
        for number, (one, other) in enumerate(calls):
            yield from _compare_call(one, other, pair, ruler, is_first=number == 0)
        scales = pair.deep[0].loss_scale, pair.deep[1].loss_scale
        if scales[0] != scales[1]:
            yield Difference(Phase.LOSS, "scale of the GradScaler", f"{scales[0]} -> {scales[1]}")
    if not ruler.is_same_loss(before.loss, now.loss, pair.index):
        yield Difference(_place_loss(pair), LOSS, tell_ratio("", before.loss, now.loss))
    if before.was_skipped != now.was_skipped:
        yield Difference(Phase.LOSS, SCALER_STEP, "now skipped" if now.was_skipped else "no longer skipped")


def _place_loss(pair: Pair) -> Phase:
    """The phase a loss belongs to that differs: its own, where what it is computed from is known to be the same."""
    if pair.deep is None:
        return Phase.LOSS if _has_same_calls(pair) else Phase.FORWARD
    inputs = [
        one.inputs == other.inputs
        for one, other in zip(pair.deep[0].losses, pair.deep[1].losses, strict=False)
        if one.inputs and other.inputs
    ]
    is_same = has_same_outputs(pair) or (bool(inputs) and all(inputs))
    return Phase.LOSS if is_same else Phase.FORWARD


def _has_same_calls(pair: Pair) -> bool:
    """Whether models are known to have given the same in all calls of the step; with a closure, of its first call."""
    one, other = pair.before.outputs, pair.now.outputs
    return bool(one) and one == other


def _compare_call(
    one: LossPoint, other: LossPoint, pair: Pair, ruler: Ruler, *, is_first: bool
) -> Iterator[Difference]:
    if one.name != other.name:
        yield Difference(Phase.LOSS, "loss function", f"{one.name} -> {other.name}")
        return
    if ruler.is_exact and one.targets and other.targets and one.targets != other.targets:
        yield Difference(Phase.LOSS, f"targets of {one.name}", "other values", ("targets",))
    if ruler.is_exact and one.inputs and other.inputs and one.inputs != other.inputs:
        # Outputs of modules are known of their first calls only: later ones may have given something else.
        is_known = has_same_outputs(pair) and (is_first or _has_same_calls(pair))
        phase = Phase.LOSS if is_known else Phase.FORWARD
        yield Difference(phase, f"{INPUTS_OF} {one.name}", "other values")
    elif not _is_same_value(one, other, pair, ruler):
        phase = Phase.LOSS if one.inputs and one.inputs == other.inputs else _place_loss(pair)
        yield Difference(phase, f"value of {one.name}", tell_ratio("", one.value, other.value))
    if (
        one.scale is not None
        and other.scale is not None
        and measure_distance(one.scale, other.scale) > SAME_TENSORS
    ):
        change = tell_ratio("", one.scale, other.scale)
        yield Difference(Phase.LOSS, f"scale with which {one.name} reaches the gradient", change)


def _is_same_value(one: LossPoint, other: LossPoint, pair: Pair, ruler: Ruler) -> bool:
    # One of several losses may be far smaller than all together, which is what the size of losses is about.
    is_whole = one.value == pair.before.loss and other.value == pair.now.loss
    is_same = ruler.is_same_loss if is_whole else ruler.is_same
    return is_same(one.value, other.value, pair.index)


def has_other_targets(pair: Pair) -> bool:
    """Whether a loss function of the step is known to have had other targets."""
    return pair.deep is not None and any(
        one.targets and other.targets and one.targets != other.targets
        for one, other in zip(pair.deep[0].losses, pair.deep[1].losses, strict=False)
    )
