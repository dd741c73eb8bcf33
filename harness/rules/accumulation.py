"""Rules about the weight with which each micro-batch of an accumulation reaches the gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.rules.deep_steps import (
    find_obstacle_to_single,
    has_distinct_batches,
    list_deep,
    observed_of,
    tell_steps,
)
from harness.rules.finding import Bound, Evidence, Rule, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.record.deep import DeepObservation, LossFunctionObservation
    from harness.record.run import TrainingRun
    from harness.record.step_observation import StepObservation


CLASSIFICATION = ("cross_entropy", "nll_loss")


REGRESSION = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")


SAME = 0.005


MIN_MICRO_BATCHES = 2


@dataclass(frozen=True, slots=True)
class Shares:
    """With which weight each micro-batch of a step counts, and how many targets it scores.

    Attributes:
        step: The step.
        name: The loss function.
        weights: Of each micro-batch's mean loss in the gradient; one over their number each is right where they
            score as many targets.
        counts: Targets scored.
        are_tokens: Whether targets are more than one per sample, or some are ignored.
    """

    step: int
    name: str
    weights: tuple[float, ...]
    counts: tuple[int, ...]
    are_tokens: bool

    @property
    def total(self) -> float:
        """The sum of the weights; 1 is right."""
        return sum(self.weights)

    @property
    def are_equal(self) -> bool:
        """Whether all weights are the same."""
        return max(self.weights) - min(self.weights) <= SAME * max(map(abs, self.weights))

    @property
    def skew(self) -> float:
        """By how much the weight of one target differs most from what it should be, as a share of that."""
        targets = sum(self.counts)
        return max(
            abs(weight / self.total * targets / count - 1)
            for weight, count in zip(self.weights, self.counts, strict=True)
        )


def find_shares(run: TrainingRun) -> list[Shares]:
    """The deep steps that plainly accumulate: several micro-batches, one and the same loss function for each."""
    if observed_of(run).world_size > 1:
        return []
    found = [_read_shares(step, deep) for step, deep in list_deep(run)]
    return [shares for shares in found if shares is not None]


def _read_shares(step: StepObservation, deep: DeepObservation) -> Shares | None:
    calls = [call for call in deep.loss_functions if call.is_training]
    num = step.num_micro_batches
    if (
        num < MIN_MICRO_BATCHES
        or not has_distinct_batches(step, deep)
        or not len(calls) == num == len(step.losses)
    ):
        return None
    kinds = {(call.name, call.reduction, call.input_shape[1:2]) for call in calls}
    is_one_kind = len(kinds) == 1 and calls[0].name in (*CLASSIFICATION, *REGRESSION)
    # Where gradients are cleared between micro-batches, weights say nothing.
    if not is_one_kind or not all(deep.grad_norms_before_backward[1:]):
        return None
    counts = tuple(_count_targets(call) for call in calls)
    weights = tuple(
        _find_weight(call, loss, count, deep.loss_scale or 1.0)
        for call, loss, count in zip(calls, step.losses, counts, strict=True)
    )
    if not all(counts) or not all(weights):
        return None
    are_tokens = any(
        (call.share_ignored or 0) > 0
        or count != call.input_shape[0]
        or _has_odd_samples(step, call, position)
        for position, (call, count) in enumerate(zip(calls, counts, strict=True))
    )
    return Shares(step.step, calls[0].name, weights, counts, are_tokens)


def _find_weight(call: LossFunctionObservation, loss: float, count: int, loss_scale: float) -> float:
    """The weight of a call's mean in the gradient; 0 where it can't be told."""
    if call.scale is None or call.value is None or call.has_weight:
        return 0.0
    scale = call.scale / loss_scale
    # Another term in the loss, or a value of one's own, says that more is meant than a mean.
    if not math.isclose(call.value * scale, loss, rel_tol=1e-3, abs_tol=1e-9):
        return 0.0
    return max(0.0, scale * count if call.reduction == "sum" else scale)


def _count_targets(call: LossFunctionObservation) -> int:
    num = math.prod(call.target_shape)
    if call.name in CLASSIFICATION and len(call.target_shape) == len(call.input_shape) and num:
        # Probabilities of classes: one target per row.
        num //= call.input_shape[min(1, len(call.input_shape) - 1)]
    return round(num * (1.0 - (call.share_ignored or 0.0)))


def _has_odd_samples(step: StepObservation, call: LossFunctionObservation, position: int) -> bool:
    """Whether the loss was given more rows than the model was given samples."""
    if position >= len(step.batch_shapes) or not step.batch_shapes[position]:
        return False
    samples = step.batch_shapes[position][0]
    return bool(samples) and call.input_shape[0] != samples[0]


def _check_scale(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    found = find_shares(run)
    if not found:
        return
    first, allowed = found[0], bounds["tolerance"]
    num = len(first.weights)
    where = tell_steps([shares.step for shares in found])
    told = (
        f"{first.name} of the {num} micro-batches of a step reaches the gradient with the weights "
        f"{_tell(first.weights)}"
    )
    if all(_is_near(shares.total, len(shares.weights), allowed) for shares in found):
        yield Evidence(
            message=f"{told}, which add up to {first.total:.4g} instead of 1, in {where}: the gradient is {num} times "
            "that of the whole batch.",
            cause="each micro-batch's mean loss is accumulated as it is, without dividing by their number.",
            advice="divide each loss by the number of micro-batches, or summed losses by the targets of the whole "
            "step.",
            subject=first.name,
            step=first.step,
        )
    elif first.name in CLASSIFICATION and all(
        _is_near(shares.total, 1 / len(shares.weights), allowed) for shares in found
    ):
        yield Evidence(
            message=f"{told}, which add up to {first.total:.4g} instead of 1, in {where}: the gradient is {num} times "
            "too small.",
            cause="the loss is divided by the number of micro-batches twice, in the program and in its trainer, or on "
            "top of a division by the targets of the whole step.",
            advice="keep one of the two divisions.",
            subject=first.name,
            step=first.step,
        )
    else:
        odd = [
            s
            for s in found
            if len(set(s.counts)) == 1 and max(s.weights) > bounds["max_ratio"] * min(s.weights)
        ]
        if len(odd) == len(found):
            yield Evidence(
                message=f"{told}, although each scores {first.counts[0]} targets, in {where}.",
                cause="micro-batches that are weighted on purpose, or a loss whose scale changes inside the step.",
                advice="give every micro-batch the same weight, if this was not meant.",
                subject=first.name,
                step=first.step,
                severity=Severity.NOTE,
            )


def _is_near(value: float, wanted: float, allowed: float) -> bool:
    return abs(value - wanted) <= allowed * wanted


def _tell(weights: tuple[float, ...]) -> str:
    shown = ", ".join(f"{weight:.4g}" for weight in weights[:4])
    return f"{shown}, ..." if len(weights) > 4 else shown  # noqa: PLR2004  as many as are shown


def _check_tokens(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    found = find_shares(run)
    uneven = [s for s in found if s.are_tokens and s.are_equal and s.skew > bounds["max_skew"]]
    if not uneven or any(s.are_tokens and not s.are_equal for s in found):
        return
    worst = max(uneven, key=lambda shares: shares.skew)
    yield Evidence(
        message=f"the {len(worst.counts)} micro-batches of step {worst.step} score {_tell_counts(worst.counts)} "
        "targets and "
        f"count alike, so that a target weighs up to {worst.skew:.1%} more or less than it should (allowed "
        f"{bounds['max_skew']:.0%}); so in {tell_steps([shares.step for shares in uneven])}.",
        cause="means over micro-batches are averaged, although they are over different numbers of tokens.",
        advice="sum each loss (reduction='sum') and divide by the targets of the whole step.",
        subject=worst.name,
        step=uneven[0].step,
    )


def _tell_counts(counts: tuple[int, ...]) -> str:
    shown = ", ".join(str(count) for count in counts[:4])
    return f"{shown}, ..." if len(counts) > 4 else shown  # noqa: PLR2004  as many as are shown


ACCUMULATION_SCALE = Rule(
    code="T411",
    name="accumulation-scale",
    severity=Severity.WARNING,
    summary="The weights with which the micro-batches of a step reach the gradient add up to one.",
    explanation="""\
A hook on the loss function's result tells the factor with which it reached the gradient. For a mean that is its
weight, for a sum the factor times the targets scored; the factor of a GradScaler is divided out. The weights of the
N micro-batches of a step should add up to 1: N says that nothing was divided, 1/N that it was divided twice. Weights
that differ although each micro-batch scores as many targets are a note.

Judged only where a step plainly accumulates: as many different batches as backwards, one call of one and the same
loss function (cross-entropy, or a loss of regression) for each, which alone makes up the loss. So several losses,
several optimizers, closures, sharpness-aware steps, distributed runs and losses written by hand are not.""",
    cases=("transformers#34191", "a loss divided twice (transformers#35438)", "transformers#37766"),
    bounds=(
        Bound("tolerance", 0.01, "share by which the sum may be off N, or 1/N, to be taken for it"),
        Bound(
            "max_ratio", 1.2, "how many times the least weight the greatest may be, where counts are equal"
        ),
    ),
    find_obstacle=find_obstacle_to_single,
    check=_check_scale,
    explains=("T412", "T406", "T425"),
)


TOKEN_WEIGHTS = Rule(
    code="T412",
    name="accumulation-not-token-weighted",
    severity=Severity.WARNING,
    summary="Every target of a step weighs the same, in whichever micro-batch it is.",
    explanation="""\
Micro-batches that score different numbers of targets, but have the same weight. How many are scored comes from the
shape of the targets and the share that is ignored. Judged in the same steps as T411, and only where targets are
tokens: more of them than samples, or some ignored. A last micro-batch with fewer samples is silent, and so is a run
of which a step has weights that differ.""",
    cases=("transformers#34191, which every trainer had in 2024",),
    bounds=(Bound("max_skew", 0.02, "share by which the weight of a target may be off"),),
    find_obstacle=find_obstacle_to_single,
    check=_check_tokens,
)


RULES = (
    ACCUMULATION_SCALE,
    TOKEN_WEIGHTS,
)
