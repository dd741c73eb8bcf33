"""Rules about losses that a GradScaler was to scale, and did not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.rules.deep_steps import find_obstacle_to_single, list_deep, observed_of, tell_steps
from harness.rules.finding import Bound, Evidence, Rule, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.record.run import TrainingRun

LEAST_SCALE = 256.0


def _find_obstacle(run: TrainingRun) -> str | None:
    obstacle = find_obstacle_to_single(run)
    if obstacle is None and observed_of(run).scaler is None:
        return "no loss was scaled"
    return obstacle


def _check_scaled(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    found: list[tuple[int, float, float]] = []
    num_looked_at = 0
    for step, deep in list_deep(run):
        scales = [call.scale for call in deep.loss_functions if call.is_training and call.scale]
        if not scales or deep.loss_scale is None or deep.loss_scale < LEAST_SCALE:
            continue
        num_looked_at += 1
        if all(0 < scale <= bounds["max_weight"] for scale in scales):
            found.append((step.step, max(scales), deep.loss_scale))
    if not found or len(found) < num_looked_at:
        return
    number, scale, wanted = found[0]
    yield Evidence(
        message=f"the GradScaler scales by {wanted:g} at step {number}, but the loss reaches backward with the factor "
        f"{scale:.4g}, in {tell_steps([step for step, _, _ in found])}: unscaling makes gradients that many times too "
        "small.",
        cause="backward is called on the loss itself, and what scaler.scale(loss) returns is dropped.",
        advice="scaler.scale(loss).backward()",
        subject="loss",
        step=number,
    )


BACKWARD_UNSCALED = Rule(
    code="T416",
    name="backward-without-scale",
    severity=Severity.WARNING,
    summary="The loss that was scaled is the one that is propagated back.",
    explanation="""\
A GradScaler with a scale of 256 or more has scaled a loss of the deep step, and the results of all loss functions reach
the gradient with factors of at most `max_weight`, which a scaled loss has only with a weight next to nothing. Losses
written by hand are not seen.""",
    cases=("scaler.scale(loss) on a line of its own",),
    bounds=(Bound("max_weight", 4.0, "largest factor that is taken for that of a loss that was not scaled"),),
    find_obstacle=_find_obstacle,
    check=_check_scaled,
    explains=("T204", "T421", "T513", "T1"),
)

RULES = (BACKWARD_UNSCALED,)
