"""Rules about the clipping of gradients."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from harness.rules.deep_steps import find_obstacle_to_single, list_deep, observed_of, tell_steps
from harness.rules.finding import Bound, Evidence, Rule, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.record.deep import DeepObservation
    from harness.record.run import TrainingRun
    from harness.record.step_observation import ClippingCall, StepObservation

EUCLIDEAN = 2.0


def _find_obstacle(run: TrainingRun) -> str | None:
    if run.observed is None:
        return "nothing was watched"
    if not any(step.clipping for step in run.observed.steps):
        return "no gradient was clipped by torch"
    return None


def _find_obstacle_to_single(run: TrainingRun) -> str | None:
    obstacle = _find_obstacle(run)
    if obstacle is None and len(observed_of(run).optimizers) > 1:
        return "there are several optimizers, and clipping can't be told apart"
    return obstacle


def _find_obstacle_to_deep(run: TrainingRun) -> str | None:
    return _find_obstacle_to_single(run) or find_obstacle_to_single(run)


def _is_bounded(call: ClippingCall) -> bool:
    """Whether it clips at all: an infinite bound is a way to ask for the norm."""
    return call.max_norm is not None and math.isfinite(call.max_norm)


def _check_unscaled(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    clipped = [step for step in observed_of(run).steps if any(_is_bounded(call) for call in step.clipping)]
    early = [step for step in clipped if any(_is_bounded(c) and c.is_before_unscale for c in step.clipping)]
    if not early:
        return
    step = early[0]
    call = next(call for call in step.clipping if _is_bounded(call) and call.is_before_unscale)
    norm = "" if call.norm is None else f" (norm {call.norm:.4g} against the bound {call.max_norm:g})"
    scaler = observed_of(run).scaler
    scale = f", by {scaler.last_scale:g} at the end" if scaler and scaler.last_scale else ""
    yield Evidence(
        message=f"gradients are clipped while they are still scaled by the GradScaler{norm}, at step {step.step} "
        "and in "
        f"{len(early)} of {len(clipped)} steps; losses are scaled{scale}.",
        cause="scaler.unscale_(optimizer) is missing before clipping, so that the bound is that many times too low.",
        advice="call scaler.unscale_(optimizer) right before clip_grad_norm_.",
        subject="clipping",
        step=step.step,
    )


def _check_early(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    early: list[StepObservation] = []
    num_clipped = 0
    for step in observed_of(run).steps:
        calls = [call for call in step.clipping if _is_bounded(call) and call.num_micro_batches is not None]
        if not calls or not step.num_micro_batches or step.num_closure_calls > 1:
            continue
        num_clipped += 1
        if all((call.num_micro_batches or 0) < step.num_micro_batches for call in calls):
            early.append(step)
    if not early or len(early) < num_clipped:
        return
    step = early[0]
    is_after = all(not call.num_micro_batches for entry in early for call in entry.clipping)
    if is_after:
        message = (
            f"gradients are clipped after the optimizer's step and before the next backward, in all {num_clipped} "
            "steps "
            f"that clip, from step {step.step} on: what the optimizer gets is not clipped."
        )
        cause = "clip_grad_norm_ comes after optimizer.step()."
    else:
        message = (
            f"gradients are clipped before the last backward of the step, in all {num_clipped} steps that clip, "
            "from step "
            f"{step.step} on ({step.num_micro_batches} micro-batches): what the last one adds is not clipped."
        )
        cause = "clip_grad_norm_ stands inside the loop over micro-batches, before backward."
    yield Evidence(
        message=message,
        cause=cause,
        advice="clip once per step, between the last backward and optimizer.step().",
        subject="clipping",
        step=step.step,
    )


def _check_coverage(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    found: list[tuple[int, int, int, float, float, float]] = []
    num_looked_at = 0
    for step, deep in list_deep(run):
        calls = _list_final(step)
        held = sum(parameter.grad_norm is not None for parameter in deep.parameters)
        total = (deep.grad_norms_after_backward or [None])[-1]
        if not calls or not held or not total or any(call.num_gradients is None for call in calls):
            continue
        num_looked_at += 1
        covered = sum(call.num_gradients or 0 for call in calls)
        if covered < held:
            seen = math.sqrt(sum((call.norm or 0.0) ** 2 for call in calls))
            left = math.sqrt(max(total**2 - seen**2, 0.0))
            found.append((step.step, covered, held, seen, left, max(call.max_norm or 0.0 for call in calls)))
    if not found or len(found) < num_looked_at:
        return
    number, covered, held, seen, left, bound = found[0]
    where = tell_steps([entry[0] for entry in found])
    if not any(entry[1] for entry in found):
        yield Evidence(
            message=f"clipping covers none of the {held} gradients that the optimizer uses, in {where}: its bound of "
            f"{bound:g} never acts on their norm of {left:.3g}.",
            cause="it is given another model's parameters, such as an averaged copy's, or a generator that was used "
            "up.",
            advice="call clip_grad_norm_(model.parameters(), ...) on the model that trains, with a fresh generator "
            "or a list.",
            subject="clipping",
            step=number,
        )
        return
    is_most_left_out = all(
        2 * num < all_of_them and left > norm for _, num, all_of_them, norm, left, _ in found
    )
    is_loud = is_most_left_out and any(left > bounds["max_left_out"] * most for *_, left, most in found)
    yield Evidence(
        message=f"clipping covers {covered} of the {held} gradients that the optimizer uses, in {where}: at step "
        f"{number} "
        f"their norm is {seen:.3g}, that of the others {left:.3g} (bound {bound:g}).",
        cause="it is given the parameters of a part of the model.",
        advice="clip all parameters of the optimizer together, unless that part alone is meant.",
        subject="clipping",
        step=number,
        severity=None if is_loud else Severity.NOTE,
    )


def _list_final(step: StepObservation) -> list[ClippingCall]:
    """The calls that clip the whole gradient of the step by its Euclidean norm; none where others do as well."""
    calls = [
        call
        for call in step.clipping
        if call.num_micro_batches == step.num_micro_batches
        and not call.is_before_unscale
        and _is_bounded(call)
    ]
    is_plain = all(call.kind == "norm" and call.norm_type == EUCLIDEAN for call in calls)
    return calls if is_plain and step.num_closure_calls <= 1 and step.num_micro_batches else []


def _check_changed(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    found: list[tuple[int, float, float]] = []
    num_looked_at = 0
    for step, deep in list_deep(run):
        expected = _find_clipped_norm(step, deep)
        if expected is None or deep.grad_norm is None:
            continue
        num_looked_at += 1
        if deep.grad_norm > bounds["max_growth"] * expected:
            found.append((step.step, expected, deep.grad_norm))
    if not found or len(found) < num_looked_at:
        return
    number, expected, got = found[0]
    yield Evidence(
        message=f"the optimizer gets a gradient of norm {got:.4g} at step {number}, though clipping left "
        f"{expected:.4g} of "
        f"it (allowed x{bounds['max_growth']:g}); so in {tell_steps([step for step, _, _ in found])}.",
        cause="something changes the gradients between clipping and the step: a scale, noise, another backward.",
        advice="clip last, right before optimizer.step().",
        subject="clipping",
        step=number,
    )


def _find_clipped_norm(step: StepObservation, deep: DeepObservation) -> float | None:
    """The norm that clipping left; None where it did not cover everything."""
    calls = _list_final(step)
    held = sum(parameter.grad_norm is not None for parameter in deep.parameters)
    if len(calls) != 1 or calls[0].num_gradients != held:
        return None
    norm, bound = calls[0].norm, calls[0].max_norm
    return None if not norm or bound is None else min(norm, bound)


def _check_tightness(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    shrinks: list[tuple[int, float, float]] = []
    for step in observed_of(run).steps:
        calls = [
            c
            for c in step.clipping
            if c.kind == "norm" and c.norm and _is_bounded(c) and not c.is_before_unscale
        ]
        if calls and not step.was_skipped and math.isfinite(calls[-1].norm or 0.0):
            shrinks.append((step.step, calls[-1].norm or 0.0, calls[-1].max_norm or 0.0))
    if len(shrinks) < bounds["min_steps"]:
        return
    factor = statistics.median(norm / bound if bound else math.inf for _, norm, bound in shrinks)
    always = all(norm > bound for _, norm, bound in shrinks)
    if factor <= bounds["max_shrink"] or not always:
        return
    number, norm, bound = shrinks[0]
    is_tiny = bound < bounds["least_bound"]
    yield Evidence(
        message=f"clipping makes the gradient {factor:.3g} times smaller in the median of {len(shrinks)} steps, and "
        "never "
        f"lets one pass: norm {norm:.3g} at step {number}, bound {bound:g} (noted above x{bounds['max_shrink']:g}).",
        cause="the bound is too low by orders of magnitude, or the loss is a sum and not a mean.",
        advice="log the norms for some steps, and set the bound near their upper end; only their direction counts "
        "now.",
        subject="clipping",
        step=number,
        severity=Severity.WARNING if is_tiny else None,
    )


CLIPPED_SCALED = Rule(
    code="T421",
    name="clipped-before-unscale",
    severity=Severity.ERROR,
    summary="Gradients are unscaled before they are clipped.",
    explanation="""\
A GradScaler has scaled a loss of the step, and `unscale_` has not been called when the gradients are clipped. A call
with an infinite bound, which only asks for the norm, is silent. A scaler that is switched off scales nothing.""",
    cases=("clip before unscale (pytorch/examples#1196)",),
    find_obstacle=_find_obstacle,
    check=_check_unscaled,
    explains=("T422", "T423", "T424", "T425"),
)
CLIPPED_EARLY = Rule(
    code="T422",
    name="clipped-too-early",
    severity=Severity.WARNING,
    summary="Gradients are clipped when they are complete, and before the step uses them.",
    explanation="""\
How many backwards of a step had run when its gradients were clipped. When no call of any step comes after the last
one, clipping stands after the optimizer's step or before the last backward. One call after the last backward is
enough to be silent. Not applied to several optimizers, whose calls can't be told apart.""",
    cases=("clip_grad_norm_ after optimizer.step()",),
    find_obstacle=_find_obstacle_to_single,
    check=_check_early,
    explains=("T424", "T425", "T406"),
)
CLIPPING_COVERAGE = Rule(
    code="T423",
    name="clipping-covers-part",
    severity=Severity.WARNING,
    summary="Clipping covers the gradients that the optimizer uses.",
    explanation="""\
How many gradients each call of a deep step covers, and how many the optimizer holds. A warning when it covers none,
and when it covers less than half of them, what it leaves out has the larger norm on every deep step, and on one of
them more than `max_left_out` times the bound; else a note: to clip a recurrent part alone may be meant.""",
    cases=("a generator of parameters used up by an earlier call", "the parameters of an averaged copy"),
    bounds=(Bound("max_left_out", 1.0, "norm of what clipping leaves out, as a multiple of its bound"),),
    find_obstacle=_find_obstacle_to_deep,
    check=_check_coverage,
)
CHANGED_AFTER_CLIPPING = Rule(
    code="T424",
    name="gradient-changed-after-clipping",
    severity=Severity.WARNING,
    summary="No gradient grows between clipping and the step.",
    explanation="""\
The norm that the optimizer gets on deep steps, against what a single call that covers all gradients left. Smaller
ones are silent.""",
    cases=("gradients scaled by the number of micro-batches after clipping",),
    bounds=(Bound("max_growth", 1.05, "how many times the clipped norm the optimizer may get"),),
    find_obstacle=_find_obstacle_to_deep,
    check=_check_changed,
)
CLIPPING_TOO_TIGHT = Rule(
    code="T425",
    name="clipping-too-tight",
    severity=Severity.NOTE,
    summary="Clipping cuts off what stands out, and not almost everything.",
    explanation="""\
The norm over the bound at every step that clips: in the median more than `max_shrink`, and never below 1.
A warning when the bound itself is below `least_bound`; otherwise a note, as with a summed loss the norms are large
and a bound of 1 may be meant.""",
    cases=("a bound of 1e-3 in place of 1",),
    bounds=(
        Bound("max_shrink", 100.0, "how many times the bound the median norm may be"),
        Bound("least_bound", 0.02, "bound below which that is a warning"),
        Bound("min_steps", 5, "fewest steps that clip"),
    ),
    find_obstacle=_find_obstacle_to_single,
    check=_check_tightness,
)

RULES = (CLIPPED_SCALED, CLIPPED_EARLY, CLIPPING_COVERAGE, CHANGED_AFTER_CLIPPING, CLIPPING_TOO_TIGHT)
