"""Rules about the scores that a loss function is given: the outputs of the model."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from harness.rules.finding import Evidence, Rule, Severity
from harness.rules.loss_calls import (
    HARD,
    count_classes,
    find_obstacle_to_calls,
    group_calls,
    is_held,
    list_calls,
    tell_place,
    tell_shape,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.record.deep import LossFunctionObservation
    from harness.record.run import TrainingRun

LOGITS = ("cross_entropy", "binary_cross_entropy_with_logits")
SCORES = ("addmm", "mm", "bmm", "baddbmm", "convolution", "mkldnn_convolution", "add", "matmul")
"""Operations whose results have no bounds: logits."""
POOLED = ("mean", "sum", "max", "softmax", "relu", "tanh")
SQUEEZED = {"softmax": "0 to 1", "sigmoid": "0 to 1", "tanh": "-1 to 1", "relu": "0 and above"}
MIN_NUMBERS = 64
MIN_ROWS = 4
GAP = 0.05
"""By how much the sum of probabilities may miss 1, as in half precision."""


def _is_softmax(call: LossFunctionObservation) -> bool:
    if call.made_by == "softmax":
        return not _is_along_other_dimension(call)
    rows = math.prod(call.input_shape) // max(count_classes(call), 1)
    return call.is_probability is True and call.made_by not in SCORES and rows >= MIN_ROWS


def _check_probabilities(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    for calls in group_calls(list_calls(run, *LOGITS)):
        name = calls[0][1].name
        made_by = _find_squeezing(calls)
        if made_by is None:
            continue
        step, first = calls[0]
        classes = count_classes(first)
        cause = "an activation at the end of the model, and a loss function that has its own."
        advice = "give the loss function the scores from before; take probabilities at inference and for metrics only."
        severity = None
        if made_by == "softmax":
            # The best that probabilities can do: 1 for the right class, 0 for all others.
            floor = math.log(1 + (classes - 1) / math.e)
            effect = (
                f"the softmax inside makes them almost equal again: the loss of {classes} classes can't fall below "
                f"{floor:.3g}, and gradients are small"
            )
        elif made_by == "log_softmax":
            severity = Severity.WARNING
            effect = "the softmax inside gives them back unchanged, so that one of the two is too many"
            cause = (
                "cross_entropy in the place of nll_loss, or a log_softmax that was left at the model's end."
            )
            advice = "take log_softmax away, or use nll_loss."
        else:
            reach = SQUEEZED[made_by]
            is_certain = first.made_by == "sigmoid" and name == LOGITS[1]
            severity = None if is_certain else Severity.WARNING
            effect = f"scores that reach only from {reach} can't tell classes apart with certainty"
        kind = {"softmax": "probabilities", "log_softmax": "log-probabilities"}.get(
            made_by, f"outputs of {made_by}"
        )
        seen = (
            f", in the range {first.input_range[0]:.3g} to {first.input_range[1]:.3g}"
            if first.input_range
            else ""
        )
        yield Evidence(
            message=f"{name} expects logits and is given {kind}{seen} ({tell_place(calls, len(calls))}): {effect}.",
            cause=cause,
            advice=advice,
            subject=name,
            step=step,
            severity=severity,
        )
        return


def _find_squeezing(calls: list[tuple[int, LossFunctionObservation]]) -> str | None:
    """What the scores of all calls of a kind have been through already; None where nothing."""
    name = calls[0][1].name
    if name == LOGITS[0]:
        if count_classes(calls[0][1]) < 2:  # noqa: PLR2004  with one class there is nothing to choose
            return None
        if is_held(calls, _is_softmax):
            return "softmax"
        if is_held(calls, lambda call: call.made_by == "log_softmax"):
            return "log_softmax"
    makers = {call.made_by for _, call in calls}
    if len(makers) == 1 and (maker := next(iter(makers))) in SQUEEZED and maker != "softmax":
        return maker
    if name == LOGITS[1] and not makers & {*SCORES, *POOLED}:
        num_numbers = sum(math.prod(call.input_shape) for _, call in calls)
        if is_held(calls, lambda call: call.is_probability is True) and num_numbers >= MIN_NUMBERS:
            return "sigmoid"
    return None


PROBABILITIES_AS_LOGITS = Rule(
    code="T301",
    name="probabilities-as-logits",
    severity=Severity.ERROR,
    summary="Loss functions that expect logits are given logits.",
    explanation="""\
`cross_entropy` and `binary_cross_entropy_with_logits` apply softmax and sigmoid themselves. An error when every
call watched is given what a softmax or sigmoid of its own kind has made: told by the operation that made the
inputs, views and casts aside, or by rows that lie between 0 and 1 and sum to 1. A warning when the last operation
is another that cuts scores off (sigmoid, tanh or ReLU), and for log-probabilities, which a second log-softmax
leaves as they are.

Silent about logits that happen to lie between 0 and 1, when a linear layer or a convolution made them, about
scaled ones (`30 * tanh(x / 30)`), and about `binary_cross_entropy`, which expects probabilities.

Not seen: losses written by hand, and anything under `torch.compile`.""",
    cases=("softmax before CrossEntropyLoss (trl#6668 and many more)", "sigmoid before BCEWithLogitsLoss"),
    find_obstacle=find_obstacle_to_calls,
    check=_check_probabilities,
    explains=("T1",),
)


def _check_log_probabilities(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    for calls in group_calls(list_calls(run, "nll_loss", "kl_div", "ctc_loss")):
        name = calls[0][1].name
        wrong = [(step, call) for step, call in calls if not _are_log_probabilities(call)]
        if len(wrong) < len(calls):
            continue
        step, first = wrong[0]
        low, high = first.class_sums or (math.nan, math.nan)
        is_probability = first.made_by == "softmax" or (
            first.input_range is not None and first.input_range[0] >= 0 and first.input_range[1] <= 1
        )
        kind = "probabilities" if is_probability else "raw scores"
        yield Evidence(
            message=f"{name} expects log-probabilities and is given {kind}: their exponentials sum to "
            f"{low:.3g} to {high:.3g} per row and not to 1 ({tell_place(wrong, len(calls))}).",
            cause="softmax or nothing at the model's end where log_softmax belongs, or arguments in the wrong order."
            if name == "kl_div"
            else "softmax or nothing at the model's end where log_softmax belongs.",
            advice=f"put log_softmax before {name}"
            + (", or give the logits to cross_entropy." if name == "nll_loss" else "."),
            subject=name,
            step=step,
        )
        return


def _are_log_probabilities(call: LossFunctionObservation) -> bool:
    """Whether inputs may be log-probabilities; True where it can't be told."""
    if call.made_by in ("log_softmax", "compiled_function") or call.class_sums is None:
        return True
    if call.input_range is not None and call.input_range[1] > GAP:
        return False
    low, high = call.class_sums
    # Rows that are padding or masked are filled with 0, or with minus infinity.
    is_whole = abs(low - 1) <= GAP or abs(high - 1) <= GAP
    # Of a distribution over one dimension only some classes may be given, or classes may be elsewhere.
    return is_whole or (call.name == "kl_div" and call.made_by in ("log", "logsumexp", "sub"))


NOT_LOG_PROBABILITIES = Rule(
    code="T302",
    name="not-log-probabilities",
    severity=Severity.ERROR,
    summary="Loss functions that expect log-probabilities are given log-probabilities.",
    explanation="""\
`nll_loss`, `kl_div` and `ctc_loss` take logarithms of probabilities: numbers not above 0 whose exponentials sum to
1 over the classes. Given anything else they can be lowered without end, and no learning comes of it. An error when
this holds for every call watched; a sum may miss 1 by 5 %, as in half precision or with a small number added before
the logarithm, and rows that are padding or masked may sum to anything, where others are normalised. What log_softmax
made is never in doubt, along whatever dimension.""",
    cases=("nll_loss on softmax outputs", "kl_div with its arguments swapped"),
    find_obstacle=find_obstacle_to_calls,
    check=_check_log_probabilities,
    explains=("T1", "T2"),
)


def _check_dimension(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    for calls in group_calls(list_calls(run, *HARD)):
        wrong = [(step, call) for step, call in calls if _is_along_other_dimension(call)]
        if not wrong or len(wrong) < len(calls):
            continue
        step, first = wrong[0]
        low, high = first.class_sums or (math.nan, math.nan)
        yield Evidence(
            message=f"the scores of {first.name} went through {first.made_by}, and yet {_tell_numbers(first)} of "
            f"their {count_classes(first)} classes sum to {low:.3g} to {high:.3g} and not to 1 "
            f"({tell_place(wrong, len(calls))}; shape {tell_shape(first.input_shape)}).",
            cause=f"{first.made_by} over another dimension than that of the classes, such as the batch: samples "
            "then compete with each other.",
            advice="give it the dimension of the classes, or leave it to cross_entropy.",
            subject=first.name,
            step=step,
        )
        return


def _tell_numbers(call: LossFunctionObservation) -> str:
    return "the probabilities" if call.name == "cross_entropy" else "the exponentials"


def _is_along_other_dimension(call: LossFunctionObservation) -> bool:
    wanted = "softmax" if call.name == "cross_entropy" else "log_softmax"
    if call.made_by != wanted or call.class_sums is None or count_classes(call) < 2:  # noqa: PLR2004  as above
        return False
    low, high = call.class_sums
    return low < 1 - 2 * GAP or high > 1 + 2 * GAP


WRONG_DIMENSION = Rule(
    code="T303",
    name="softmax-over-other-dimension",
    severity=Severity.ERROR,
    summary="Probabilities of classes sum to 1 over the classes.",
    explanation="""\
When softmax or log_softmax made what `cross_entropy` or `nll_loss` is given, and the probabilities of the classes
still do not sum to 1, it went over another dimension. Told by the sums, so that it does not matter how the tensor
was reshaped since.""",
    cases=("softmax(dim=0) over the batch", "nn.Softmax without a dimension on three dimensions"),
    find_obstacle=find_obstacle_to_calls,
    check=_check_dimension,
    explains=("T1", "T9"),
)


def _check_one_class(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    for calls in group_calls(list_calls(run)):
        step, first = calls[0]
        # In contrastive learning the last batch of an epoch may hold one sample, and that is one class.
        has_more = any(count_classes(call) > 1 for _, call in list_calls(run, first.name))
        has_one_class = first.name in HARD and count_classes(first) == 1 and not has_more
        is_softmax = first.name == "binary_cross_entropy" and first.made_by == "softmax"
        if not (has_one_class or (is_softmax and first.input_range == (1.0, 1.0))):
            continue
        yield Evidence(
            message=f"{first.name} is given scores of one class only (shape {tell_shape(first.input_shape)}): "
            f"softmax over a single score is always 1, the loss says nothing and has no gradient "
            f"({tell_place(calls, len(calls))}).",
            cause="a head with a single output for a choice of two.",
            advice="use binary_cross_entropy_with_logits for one output, or give the head an output per class.",
            subject=first.name,
            step=step,
        )
        return


ONE_CLASS = Rule(
    code="T304",
    name="one-class-only",
    severity=Severity.ERROR,
    summary="A classification loss has more than one class to choose from.",
    explanation="""\
Scores with one class only make `cross_entropy` 0 whatever the model says; so does softmax over a single output
before `binary_cross_entropy`. Silent where other calls have more classes, as in contrastive learning, where the last
batch of an epoch may hold one sample.""",
    cases=("a single output and CrossEntropyLoss for two classes",),
    find_obstacle=find_obstacle_to_calls,
    check=_check_one_class,
    explains=("T1", "T4", "T5"),
)


RULES = (ONE_CLASS, WRONG_DIMENSION, PROBABILITIES_AS_LOGITS, NOT_LOG_PROBABILITIES)
