"""Rules about gradients that stay from before, and those that get lost on the way to the optimizer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from harness.rules.deep_steps import (
    find_obstacle_to_deep,
    find_obstacle_to_single,
    is_stranger,
    list_deep,
    observed_of,
    tell_names,
    tell_steps,
)
from harness.rules.finding import Bound, Evidence, Rule, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.record.deep import ParameterObservation
    from harness.record.run import TrainingRun
    from harness.record.step_observation import StepObservation


MIN_ZERO_STEPS = 2


def _check_leftover(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    num_looked_at = 0
    found: list[tuple[int, list[ParameterObservation]]] = []
    for step, deep in list_deep(run):
        if not step.step or not step.num_micro_batches or step.num_closure_calls > 1:
            continue
        num_looked_at += 1
        if any(not norm for norm in deep.grad_norms_before_backward[1:]):
            continue
        if left := [p for p in deep.parameters if p.leftover_norm and p.grad_norm and not p.is_stale]:
            found.append((step.step, left))
    if not found:
        return
    number, left = max(found, key=lambda entry: len(entry[1]))
    deep = next(deep for _, deep in list_deep(run) if deep.step == number)
    having = [p for p in deep.parameters if p.grad_norm]
    is_all = len(left) == len(having)
    old = _join(p.leftover_norm or 0.0 for p in left)
    names = [p.name for p in left if not is_stranger(p.name)]
    which = "all parameters" if is_all else f"{len(left)} of {len(having)} parameters ({tell_names(names)})"
    yield Evidence(
        message=f"when the first backward of {tell_steps([step for step, _ in found])} began, {which} still had the "
        f"gradient of the step before (norm {old:.3g} at step {number}), and the new one was added to it; "
        f"{num_looked_at} steps were looked at.",
        cause="optimizer.zero_grad() is missing or is not called at every step."
        if is_all
        else "zero_grad() is called on a part of the model, or on another optimizer.",
        advice="call optimizer.zero_grad() once per step, before the first backward; with accumulation not between "
        "micro-batches, and step() only after the last.",
        subject=names[0] if names else "gradients",
        step=found[0][0],
        severity=None if len(found) == num_looked_at else Severity.WARNING,
    )


def _join(norms: Iterator[float]) -> float:
    return math.sqrt(sum(norm * norm for norm in norms))


def _check_stale(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    found: list[tuple[StepObservation, list[ParameterObservation]]] = []
    for step, deep in list_deep(run):
        if step.num_closure_calls > 1:
            continue
        if stale := [p for p in deep.parameters if p.is_stale and p.grad_norm and p.update_norm]:
            found.append((step, stale))
    if not found:
        return
    without = [step.step for step, _ in found if not step.num_micro_batches]
    if without:
        rows = [s for s in observed_of(run).steps if s.optimizers and not s.was_skipped]
        num_without = sum(not s.num_micro_batches and s.num_closure_calls <= 1 for s in rows)
        yield Evidence(
            message=f"the optimizer stepped in {tell_steps(without)} without a backward since the step before, and "
            f"used the same gradients again; {num_without} of {len(rows)} steps have no backward.",
            cause="optimizer.step() is called twice, or inside and after the loop over micro-batches.",
            advice="call optimizer.step() once, after the backward of the last micro-batch.",
            subject="optimizer",
            step=without[0],
        )
        return
    step, stale = found[0]
    names = [p.name for p in stale if not is_stranger(p.name)]
    yield Evidence(
        message=f"the optimizer used old gradients in {tell_steps([s.step for s, _ in found])}: no backward of step "
        f"{step.step} touched {len(stale)} parameters ({tell_names(names)}), which still had those of an earlier one.",
        cause="modules that are used in some steps only, and gradients that are not cleared in the others.",
        advice="call optimizer.zero_grad() at every step, over all parameters.",
        subject=names[0] if names else "gradients",
        step=step.step,
    )


def _check_lost(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    cleared: list[tuple[int, float]] = []
    grown: list[tuple[int, float, float]] = []
    num_looked_at = 0
    for step, deep in list_deep(run):
        norms = deep.grad_norms_after_backward
        if step.num_closure_calls > 1 or not step.num_micro_batches or len(norms) != step.num_micro_batches:
            continue
        last = (norms[-1] or 0.0) / (deep.loss_scale or 1.0)
        if not last:
            continue
        num_looked_at += 1
        if not deep.grad_norm:
            cleared.append((step.step, last))
        elif not step.clipping and len(norms) == 1 and deep.grad_norm > bounds["max_growth"] * last:
            grown.append((step.step, last, deep.grad_norm))
    if cleared and len(cleared) == num_looked_at:
        number, norm = cleared[0]
        yield Evidence(
            message=f"in {tell_steps([step for step, _ in cleared])} the backward left a gradient (norm {norm:.3g} at "
            f"step {number}), and none of it was there when the optimizer stepped.",
            cause="zero_grad() is called between backward() and step().",
            advice="move zero_grad() before the backward, or behind the step.",
            subject="gradients",
            step=number,
        )
    elif len(grown) >= MIN_ZERO_STEPS and len(grown) == num_looked_at:
        number, before, after = grown[0]
        yield Evidence(
            message=f"between backward and the optimizer's step the gradient grows: norm {before:.3g} -> "
            f"{after:.3g} at "
            f"step {number}, and as much in {tell_steps([step for step, _, _ in grown])} "
            f"(allowed x{bounds['max_growth']:g}).",
            cause="the program changes .grad itself: noise, a scale, or another backward's gradient.",
            advice="compare parameter.grad right after backward and right before step().",
            subject="gradients",
            step=number,
            severity=Severity.WARNING,
        )


GRADIENTS_NOT_CLEARED = Rule(
    code="T403",
    name="gradients-not-cleared",
    severity=Severity.ERROR,
    summary="A step begins without the gradients of the step before.",
    explanation="""\
The norm of the gradients that the optimizer's parameters hold when the first backward of a step begins. Only
parameters of the optimizers that step are looked at, so what a generator's step leaves in the critic is nobody's
fault; accumulation adds up within a step; a gradient that is cleared later in the same step is forgiven. An error
when it is so on every deep step after the run's first, else a warning. Steps whose closure is called more than
once are passed over.""",
    cases=("zero_grad missing", "zero_grad on a part of the model", "step() inside the accumulation"),
    find_obstacle=find_obstacle_to_deep,
    check=_check_leftover,
    explains=("T404", "T41", "T42", "T1", "T5"),
)


STALE_GRADIENT = Rule(
    code="T404",
    name="stale-gradient",
    severity=Severity.WARNING,
    summary="The optimizer uses gradients of this step only.",
    explanation="""\
A parameter whose gradient no backward of the step has touched, and which the optimizer moves by it all the same:
modules used now and then whose gradients stay, or an optimizer that steps again without a backward. Gradients that
are None or zero are not stale.""",
    cases=(
        "an expert updated by the gradient of the last step that chose it",
        "optimizer.step() called twice",
    ),
    find_obstacle=find_obstacle_to_deep,
    check=_check_stale,
)


LOST_GRADIENT = Rule(
    code="T405",
    name="gradient-changed-before-step",
    severity=Severity.ERROR,
    summary="What backward computed is what the optimizer gets, clipping aside.",
    explanation="""\
The norm of the gradients after the last backward of a step and right before the optimizer steps, on the deep steps.
An error when all is gone by then on every one of them. A warning when it grows by more than `max_growth` on all of
them, in steps of one backward without clipping. Smaller gradients are passed over: many programs divide them by
hand. Not applied where several optimizers take turns.""",
    cases=("zero_grad between backward and step", "noise added to .grad"),
    bounds=(
        Bound("max_growth", 3.0, "how many times as large the gradient may be at the step as after backward"),
    ),
    find_obstacle=find_obstacle_to_single,
    check=_check_lost,
    explains=("T424", "T1", "T5"),
)


RULES = (GRADIENTS_NOT_CLEARED, STALE_GRADIENT, LOST_GRADIENT)
