"""Rules about the loss curve and about numbers that are not numbers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from harness.record.watched import has_several_optimizers
from harness.rules.finding import Finding, Rule, Severity
from harness.rules.trend import ALPHA, MIN_CHANGE, MIN_VALUES, measure_trend

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.record.run import TrainingRun


def _find_obstacle_to_trend(run: TrainingRun) -> str | None:
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


def _check_decrease(run: TrainingRun, rule: Rule) -> Iterator[Finding]:
    losses = run.losses
    trend = measure_trend(losses)
    if trend.is_falling:
        return
    severity = rule.severity
    stillness = _find_stillness(run)
    if stillness is not None:
        seen = stillness
        if len(set(losses)) > 1:
            seen = f"the loss does not fall ({trend.start:.6g} -> {trend.end:.6g}), and {stillness}"
        cause = (
            "Likely: nothing is learned at all: learning rate 0, parameters not in the optimizer, "
            "no optimizer.step(), or a loss cut off from the parameters."
        )
    elif trend.is_rising:
        seen = f"the loss rises from {trend.start:.6g} to {trend.end:.6g} ({-trend.drop:+.1%})"
        cause = (
            "Likely: learning rate too high, sign of the loss turned round, or labels and inputs out of step."
        )
    else:
        severity = Severity.NOTE
        seen = f"the loss is not shown to fall: {trend.start:.6g} at the start, {trend.end:.6g} at the end"
        if trend.is_level:
            seen += f"; a drop of {MIN_CHANGE:.0%} would have been seen through its noise"
            cause = "A training from scratch should fall; one that starts near its floor, as a resumed one, need not."
        else:
            seen += f", within its noise (p = {trend.p_fall:.2g}, needed {ALPHA:g})"
            cause = "Too short or too noisy to tell: train more steps, or on larger batches."
    yield Finding(
        code=rule.code,
        name=rule.name,
        severity=severity,
        message=f"{seen}, over {len(losses)} steps ({run.source}).",
        cause=cause,
        subject=run.loss_name or "loss",
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


def _check_finite(run: TrainingRun, rule: Rule) -> Iterator[Finding]:
    logged = [] if run.logged is run.steps else run.logged
    sources = [(step, run.source) for step in run.steps] + [(step, run.logged_source) for step in logged]
    for step, source in sources:
        broken = {name: value for name, value in step.metrics.items() if not math.isfinite(value)}
        if not broken:
            continue
        name, value = next(iter(broken.items()))
        also = f" (also {', '.join(list(broken)[1:])})" if len(broken) > 1 else ""
        num_broken = sum(not math.isfinite(other) for _, other in run.metric(name))
        yield Finding(
            code=rule.code,
            name=rule.name,
            severity=rule.severity,
            message=f"{name} is {value} at step {step.step}{also}, for the first time; "
            f"{num_broken} of {len(run.metric(name))} values are not finite ({source}).",
            cause="Likely: overflow, division by zero, log or sqrt of zero, or a learning rate that is too high. "
            "Look at the batch and the gradient norm of that step, and run once under "
            "torch.autograd.set_detect_anomaly(True).",
            subject=name,
            step=step.step,
        )
        return


LOSS_NOT_DECREASING = Rule(
    code="T101",
    name="loss-not-decreasing",
    severity=Severity.ERROR,
    summary="The loss falls over the run; an error when it is shown not to, a note when that can't be told.",
    find_obstacle=_find_obstacle_to_trend,
    check=_check_decrease,
)

NON_FINITE_METRIC = Rule(
    code="T201",
    name="non-finite-metric",
    severity=Severity.ERROR,
    summary="Every logged number is finite.",
    find_obstacle=lambda run: None if run.steps else "the run has no step",
    check=_check_finite,
)
