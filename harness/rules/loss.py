"""Rules about the loss curve."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from harness.record.watched import has_several_optimizers
from harness.rules.finding import Bound, Evidence, Rule, Severity
from harness.rules.loss_calls import is_held, list_calls
from harness.rules.trend import ALPHA, MIN_CHANGE, MIN_VALUES, measure_trend

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.record.run import TrainingRun


def find_obstacle_to_trend(run: TrainingRun) -> str | None:
    """Why nothing can be said of the direction of a run's loss; None when something can."""
    losses = run.losses
    if run.observed is not None and has_several_optimizers(run.observed):
        return "several optimizers take turns, and what one of them gains another may lose"
    if run.observed is not None and run.observed.environments:
        return f"the program uses {run.observed.environments[0]}, and the loss of reinforcement learning need not fall"
    if len(losses) < MIN_VALUES:
        return f"it needs {MIN_VALUES} losses, the run has {len(losses)}"
    if not all(math.isfinite(loss) for loss in losses):
        return "the loss is not finite throughout"
    return None


def _check_decrease(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    losses = run.losses
    min_change = bounds["min_change"]
    trend = measure_trend(losses)
    if trend.is_falling:
        return
    severity = None
    stillness = _find_stillness(run)
    if stillness is not None:
        seen = stillness
        if len(set(losses)) > 1:
            seen = f"the loss does not fall ({trend.start:.6g} -> {trend.end:.6g}), and {stillness}"
        cause = (
            "nothing is learned at all: learning rate 0, parameters that no optimizer holds, no optimizer.step(), "
            "or a loss cut off from the parameters."
        )
        advice = "look at the learning rate and at what the optimizer was built with."
    elif trend.is_rising(min_change):
        change = f"{-trend.drop:+.1%}, allowed {min_change:.0%}"
        seen = f"the loss rises from {trend.start:.6g} to {trend.end:.6g} ({change})"
        cause = "learning rate too high, sign of the loss turned round, or labels and inputs out of step."
        advice = (
            "train with a tenth of the learning rate; if it rises still, look at the sign and at the labels."
        )
        # A difference, as of rewards and a penalty, is no measure of how well a model does; and a queue of random
        # vectors is easier to tell apart from a sample than one that is filled.
        if min(losses) < 0 < max(losses) or _has_queue(run):
            severity = Severity.NOTE
    else:
        severity = Severity.NOTE
        seen = f"the loss is not shown to fall: {trend.start:.6g} at the start, {trend.end:.6g} at the end"
        if trend.is_level(min_change):
            seen += f"; a drop of {min_change:.0%} would have been seen through its noise"
            cause = (
                "a training that starts near its floor, as a resumed one does; from scratch it should fall."
            )
            advice = "train longer, or from scratch, to see it fall."
        else:
            seen += f", within its noise (p = {trend.p_fall:.2g}, needed {ALPHA:g})"
            cause = "too short or too noisy to tell."
            advice = "train more steps, or on larger batches."
    yield Evidence(
        message=f"{seen}, over {len(losses)} steps ({run.source}).",
        cause=cause,
        advice=advice,
        subject=run.loss_name or "loss",
        severity=severity,
    )


def _has_queue(run: TrainingRun) -> bool:
    """Whether samples are told from a queue of others: labels that are all 0, of scores with a temperature."""
    calls = list_calls(run)
    return is_held(
        calls,
        lambda call: call.name == "cross_entropy" and call.label_range == (0, 0) and call.made_by == "div",
    )


def _find_stillness(run: TrainingRun) -> str | None:
    """What shows that nothing moves in a run, apart from its curve; None when nothing does."""
    if len(set(run.losses)) == 1:
        return f"every one of the {len(run.losses)} losses is {run.losses[0]:.6g}"
    steps = run.observed.steps if run.observed else []
    rates = [rate for step in steps for group in step.learning_rates for rate in group if rate is not None]
    if rates and not any(rates):
        return f"the learning rate is 0 in all {len(steps)} steps"
    updates = [step.update_norm for step in steps if step.update_norm is not None]
    if updates and not any(updates):
        return f"no parameter changes in the {len(updates)} steps that were watched in depth"
    return None


LOSS_NOT_DECREASING = Rule(
    code="T101",
    name="loss-not-decreasing",
    severity=Severity.ERROR,
    summary="The loss falls over the run.",
    explanation="""\
An error when something shows that nothing moves: every loss is the same, every learning rate is 0, or no
parameter changes on the steps watched in depth; and when the loss is shown to rise, by more than `min_change`,
at a level of 0.1 %. A note when it rises and is sometimes above 0 and sometimes below, as a reward less a penalty is;
when samples are told from a queue of others, which gets harder while the queue fills (momentum contrast);
and when it is not shown to fall, and the run may as well be short, noisy, or near its
floor, as a resumed one is.

Kendall's tau of the losses against the step sees a steady fall, Mann-Whitney's U of the first against the last
half an early one; both look at ranks, so an outlier decides nothing. How often it is wrong is measured in
[performance](../performance.md).

Not applied to fewer than six losses, where several optimizers take turns, and to a program that has imported a
library of environments (gymnasium and its like): the loss of reinforcement learning need not fall.

`assert_loss_decreases(run, min_drop=0.2)` is stricter: it asks for proof of a fall.""",
    cases=(
        "an optimizer built over a deep copy of the model (accelerate#2665, pytorch#149205)",
        "a learning rate of 0 for the whole run (transformers#24088)",
        "a negated loss",
    ),
    bounds=(
        Bound("min_change", MIN_CHANGE, "smallest change of the loss that counts, as a share of its start"),
    ),
    find_obstacle=find_obstacle_to_trend,
    check=_check_decrease,
)

RULES = (LOSS_NOT_DECREASING,)
