"""Rules about the values and shapes of targets, beside those of predictions."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.rules.finding import Bound, Evidence, Rule, Severity
from harness.rules.loss_calls import (
    HARD,
    find_obstacle_to_calls,
    group_calls,
    list_calls,
    tell_place,
    tell_shape,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.record.deep import LossFunctionObservation
    from harness.record.run import TrainingRun
    from harness.rules.loss_calls import Call

BINARY = ("binary_cross_entropy", "binary_cross_entropy_with_logits")
REGRESSION = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")
PLAIN_SGD = ("SGD",)
HALF = ("float16", "bfloat16")
TOLERANCE = 1e-3
LARGE_UPDATE = 0.05


def _check_shapes(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    calls = list_calls(run, *REGRESSION)
    wrong = [(step, call) for step, call in calls if _is_blown_up(call.input_shape, call.target_shape)]
    if wrong:
        step, first = wrong[0]
        yield _tell_broadcast(
            first.name, first.input_shape, first.target_shape, step, tell_place(wrong, len(calls))
        )
        return
    deep_steps = run.observed.deep_steps if run.observed else []
    for deep in deep_steps:
        for backward in deep.backwards:
            if backward.prediction_shape is not None and backward.difference_shape is not None:
                length = max(backward.prediction_shape)
                other = (length,) if len(backward.prediction_shape) > 1 else (length, 1)
                by_hand = "a difference written by hand"
                told = _tell_broadcast("the loss", backward.prediction_shape, other, deep.step, by_hand)
                # Distances between samples and observations pair all with all on purpose.
                yield replace(told, severity=Severity.WARNING)
                return


def _is_blown_up(given: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether both sides of a difference are repeated, so that every prediction meets every target."""
    length = max(len(given), len(wanted))
    one, other = ((1,) * (length - len(shape)) + shape for shape in (given, wanted))
    pairs = list(zip(one, other, strict=True))
    return any(a == 1 < b for a, b in pairs) and any(b == 1 < a for a, b in pairs)


def _tell_broadcast(
    name: str, given: tuple[int, ...], wanted: tuple[int, ...], step: int, place: str
) -> Evidence:
    return Evidence(
        message=f"{name} compares predictions of shape {tell_shape(given)} with targets of shape "
        f"{tell_shape(wanted)}: broadcasting pairs every prediction with every target, and all predictions are "
        f"drawn to the mean of the targets ({place}).",
        cause="a dimension of size 1 that one of the two has and the other has not.",
        advice="give both one shape: predictions.squeeze(-1), or targets.unsqueeze(-1).",
        subject=name,
        step=step,
    )


SHAPES_BROADCAST = Rule(
    code="T317",
    name="targets-broadcast",
    severity=Severity.ERROR,
    summary="Predictions and targets have one shape.",
    explanation="""\
A prediction of shape (N, 1) less a target of shape (N,) is N times N numbers, and the mean of their squares is
smallest where every prediction is the mean of all targets. An error when both shapes are repeated; one target for
all, or one prediction for several targets, is let through. Differences written by hand are told by their graph: a
column that becomes a square, where the program did not put the dimension in itself and the other side has no graph.
These are a warning, as distances of all pairs, of which some losses are made, look the same.""",
    cases=("mse_loss of (N, 1) and (N,), which torch warns of once, in a log nobody reads",),
    find_obstacle=lambda run: (
        None if run.observed and run.observed.deep_steps else "no step was watched in depth"
    ),
    check=_check_shapes,
    explains=("T1", "T316"),
)


def _check_range(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    for calls in group_calls(list_calls(run)):
        wrong = [(step, call) for step, call in calls if _find_range_fault(call) is not None]
        if not wrong:
            continue
        step, first = wrong[0]
        seen, effect, advice = _find_range_fault(first) or ("", "", "")
        yield Evidence(
            message=f"{first.name} is given targets {seen} ({tell_place(wrong, len(calls))}): {effect}.",
            cause="labels in the convention of another loss function, or targets that were scaled like inputs.",
            advice=advice,
            subject=first.name,
            step=step,
            severity=Severity.WARNING if first.name == "cross_entropy" else None,
        )
        return


def _find_range_fault(call: LossFunctionObservation) -> tuple[str, str, str] | None:
    if call.share_odd_signs:
        return (
            f"of which {call.share_odd_signs:.0%} are neither 1 nor -1",
            "those are not pulled to where they belong",
            "turn labels of 0 and 1 into -1 and 1: 2 * labels - 1.",
        )
    if call.target_range is None:
        return None
    low, high = call.target_range
    seen = f"from {low:.4g} to {high:.4g}"
    is_masked = call.has_weight or call.reduction == "none"
    if call.name in BINARY and not is_masked and (low < -TOLERANCE or high > 1 + TOLERANCE):
        return (
            f"{seen} where it expects 0 to 1",
            "it can be lowered without end",
            "bring the targets to 0 and 1.",
        )
    if call.name == "cross_entropy" and not is_masked and low < -TOLERANCE and call.target_sums is not None:
        return (
            f"{seen} where it expects probabilities",
            "it can be lowered without end",
            "give it softmax of the teacher's scores, or labels.",
        )
    if call.name == "kl_div" and not call.is_log_target and low < -TOLERANCE:
        return (
            f"{seen} where it expects probabilities",
            "their logarithm is NaN",
            "give it probabilities, or log_target=True for log-probabilities.",
        )
    return None


TARGETS_OUT_OF_RANGE = Rule(
    code="T315",
    name="targets-out-of-range",
    severity=Severity.ERROR,
    summary="Targets are what the loss function expects: probabilities, or signs.",
    explanation="""\
Torch does not look: `binary_cross_entropy` with a target of -1 or 255 can be lowered without end, `kl_div` takes
the logarithm of its targets, and the losses that expect 1 and -1 do nothing with 0. A warning for `cross_entropy`
with negative targets, as a reward may be multiplied in on purpose. Losses with weights, and losses per element,
may mask such targets and are let through.""",
    cases=(
        "labels -1 and 1 in BCEWithLogitsLoss",
        "labels 0 and 1 in MarginRankingLoss",
        "pixels of 0 to 255 in BCE",
    ),
    find_obstacle=find_obstacle_to_calls,
    check=_check_range,
    explains=("T1", "T2"),
)


def _check_reach(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    for calls in group_calls(list_calls(run, *REGRESSION)):
        makers = {call.made_by for _, call in calls}
        out = [(step, call) for step, call in calls if (call.share_out_of_reach or 0) > bounds["max_share"]]
        if len(makers) > 1 or len(out) < len(calls):
            continue
        step, first = out[0]
        low, high = first.target_range or (math.nan, math.nan)
        yield Evidence(
            message=f"{first.made_by} makes the predictions of {first.name}, and can never give {_share(out)} of the "
            f"targets, which go from {low:.4g} to {high:.4g} ({tell_place(out, len(calls))}; "
            f"at most {bounds['max_share']:.0%} allowed).",
            cause="targets scaled to mean 0 and deviation 1, and an activation at the model's end made for others.",
            advice="take the activation away, or scale the targets into its range.",
            subject=first.name,
            step=step,
        )
        return


def _share(calls: list[Call]) -> str:
    return f"{max(call.share_out_of_reach or 0 for _, call in calls):.0%}"


OUT_OF_REACH = Rule(
    code="T316",
    name="targets-out-of-reach",
    severity=Severity.WARNING,
    summary="The model's last activation can give the targets of a regression.",
    explanation="""\
A ReLU never gives a negative number, a sigmoid none outside 0 to 1, a tanh none outside -1 to 1. A warning when
more than `max_share` of the targets lie where the last operation can't go, in every call watched. A few may, by
noise.""",
    cases=("a sigmoid at the end of a decoder of images that were normalised", "a ReLU after the last layer"),
    bounds=(Bound("max_share", 0.1, "largest share of the targets that may be out of reach"),),
    find_obstacle=find_obstacle_to_calls,
    check=_check_reach,
    explains=("T1",),
)


def _check_sum(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    calls = list_calls(run)
    if not calls or {call.name for _, call in calls} - set(HARD):
        return
    summed = [
        (step, call)
        for step, call in calls
        if call.reduction == "sum" and call.scale is not None and abs(call.scale - 1) < TOLERANCE
    ]
    if len(summed) < len(calls) or run.observed is None:
        return
    step, first = summed[0]
    ratios = [s.update_to_weight for s in run.observed.steps if s.update_to_weight is not None]
    is_plain = all(optimizer.name in PLAIN_SGD for optimizer in run.observed.optimizers)
    is_clipped = any(step.clipping for step in run.observed.steps)
    is_large = is_plain and not is_clipped and sum(ratio > LARGE_UPDATE for ratio in ratios) > 1
    update = f"; steps change the weights by up to {max(ratios):.0%}" if is_large else ""
    yield Evidence(
        message=f"{first.name} is summed over {first.target_shape[0] if first.target_shape else 1} samples and "
        f"reaches the backward as it is ({tell_place(summed, len(calls))}){update}: the size of the batch is a "
        "factor of the learning rate.",
        cause="reduction='sum' without a division by what was summed over.",
        advice="use the mean, or divide by the number of targets of the step.",
        subject=first.name,
        step=step,
        severity=Severity.WARNING if is_large else None,
    )


LOSS_SUMMED = Rule(
    code="T318",
    name="loss-summed",
    severity=Severity.NOTE,
    summary="A loss that is summed is divided by what it was summed over.",
    explanation="""\
A note when every loss function of the run is a classification loss that is summed, and its gradient passes on
undivided. A warning where this does harm: plain SGD without clipping, whose steps change the weights by more than
5 % each. With Adam the factor cancels. Losses of likelihoods, such as those of variational autoencoders, are summed
on purpose and let through.""",
    cases=("reduction='sum' with the learning rate of the mean",),
    find_obstacle=find_obstacle_to_calls,
    check=_check_sum,
    explains=("T1", "T5"),
)


def _is_kept(call: LossFunctionObservation, autocast: str | None) -> bool:
    """Whether a loss function keeps the type of its inputs: outside autocast, or where they are of one type."""
    return autocast is None or (call.target_dtype == call.input_dtype and call.name not in HARD)


def _check_precision(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    calls = list_calls(run)
    autocast = {deep.step: deep.autocast for deep in (run.observed.deep_steps if run.observed else [])}
    half = [
        (step, call)
        for step, call in calls
        if call.input_dtype in HALF and _is_kept(call, autocast.get(step))
    ]
    if not half or len(half) < len(calls):
        return
    step, first = half[0]
    yield Evidence(
        message=f"{first.name} is computed in {first.input_dtype} ({tell_place(half, len(calls))}): its value has two "
        "or three digits, and small differences between scores are lost.",
        cause="scores that were not turned to float32 before the loss function, or a model all in half precision.",
        advice="give the loss function scores.float(), or use autocast, which does so by itself.",
        subject=first.name,
        step=step,
    )


LOW_PRECISION = Rule(
    code="T319",
    name="loss-in-half-precision",
    severity=Severity.NOTE,
    summary="Loss functions are computed in single precision.",
    explanation="""\
A note when every loss function of the steps watched in depth was given numbers of half precision. Autocast turns
them to float32 within the function, so that under it the inputs still count as half precision: such calls are left
out, by the type of autocast at the step.""",
    cases=("logits of a bfloat16 model straight into the loss",),
    find_obstacle=find_obstacle_to_calls,
    check=_check_precision,
)

RULES = (LOW_PRECISION, SHAPES_BROADCAST, TARGETS_OUT_OF_RANGE, OUT_OF_REACH, LOSS_SUMMED)
