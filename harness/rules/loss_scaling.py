"""Rules about the loss scale of mixed precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.rules.finding import Bound, Evidence, Rule, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.record.observation import RunObservation
    from harness.record.run import TrainingRun

MIN_STEPS = 10
MIN_SCALE = 64.0
MAX_FACTOR = 1.5


def _check_scaler(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    scaler = run.observed.scaler if run.observed else None
    if scaler is None or run.observed is None:
        return
    steps = run.observed.steps
    if scaler.num_scaled and not scaler.num_steps and steps:
        yield Evidence(
            message=f"{scaler.num_scaled} losses were scaled by a GradScaler, and its step was never called: all "
            f"{len(steps)} steps used gradients that are as many times too large.",
            cause="optimizer.step() where scaler.step(optimizer) belongs.",
            advice="call scaler.step(optimizer), then scaler.update().",
            subject="GradScaler",
            step=steps[0].step,
        )
        return
    if (unscaled := _find_unscaled(run.observed)) is not None:
        step, scale, reached = unscaled
        yield Evidence(
            message=f"{scaler.num_scaled} losses were scaled by a GradScaler, and no backward began at any: at "
            f"step {step} the scale was {scale:g}, and the loss function reached the backward with the factor "
            f"{reached:.3g}. Gradients are divided by a scale they never had.",
            cause="loss.backward() where scaler.scale(loss).backward() belongs.",
            advice="call backward on what scaler.scale returned.",
            subject="GradScaler",
            step=step,
        )
        return
    skipped = [step.step for step in steps if step.was_skipped]
    if len(steps) < MIN_STEPS or not skipped:
        return
    share = len(skipped) / len(steps)
    late = [step for step in skipped if step >= steps[len(steps) // 2].step]
    is_most = share > bounds["max_share"] and len(late) > bounds["max_share"] * len(steps) / 2
    is_tiny = scaler.last_scale is not None and scaler.last_scale < bounds["min_scale"]
    if not is_most and not is_tiny:
        return
    end = "" if scaler.last_scale is None else f", the scale ends at {scaler.last_scale:.4g}"
    yield Evidence(
        message=f"the GradScaler skipped {len(skipped)} of {len(steps)} steps, {len(late)} of them in the second "
        f"half{end} (allowed: {bounds['max_share']:.0%}, a scale of {bounds['min_scale']:g}).",
        cause="gradients that are NaN or infinite whatever the scale: an overflow in the forward pass, or an operation "
        "with an infinite gradient.",
        advice="run a few steps without autocast: if gradients are still not finite, half precision is not the reason.",
        subject="GradScaler",
        step=skipped[0],
        severity=None if is_most else Severity.WARNING,
    )


def _find_unscaled(observed: RunObservation) -> tuple[int, float, float] | None:
    """The first deep step, its loss scale, and the largest factor of a loss function, where none was scaled."""
    scaler = observed.scaler
    if scaler is None or not scaler.num_scaled or not scaler.num_steps or scaler.num_backwards:
        return None
    seen = [
        (deep.step, deep.loss_scale, max(abs(call.scale) for call in deep.loss_functions if call.scale))
        for deep in observed.deep_steps
        if deep.loss_scale is not None and any(call.scale for call in deep.loss_functions)
    ]
    is_unscaled = bool(seen) and all(
        scale >= MIN_SCALE and reached <= MAX_FACTOR for _, scale, reached in seen
    )
    return seen[0] if is_unscaled else None


STEPS_SKIPPED = Rule(
    code="T204",
    name="loss-scale",
    severity=Severity.ERROR,
    summary="A GradScaler finds a scale it can work with, and steps.",
    explanation="""\
A GradScaler starts with a scale that is too large and skips the first few steps; that is how it finds one. An error
when it goes on: more than `max_share` of the steps, and of the second half of the run, are skipped; when losses were
scaled and its `step` never called; and when none of them is what backward began at, while the loss function's factor
shows no scale either. A warning when the scale fell below `min_scale`, where small gradients vanish.""",
    cases=(
        "NaN in every backward, seen only as skipped steps",
        "optimizer.step() in place of scaler.step(optimizer)",
    ),
    bounds=(
        Bound("max_share", 0.3, "largest share of the steps that may be skipped"),
        Bound("min_scale", 0.01, "smallest scale at the end"),
    ),
    find_obstacle=lambda run: (
        None if run.observed and run.observed.scaler is not None else "no GradScaler was seen at work"
    ),
    check=_check_scaler,
    explains=("T1", "T5", "T6"),
)

RULES = (STEPS_SKIPPED,)
