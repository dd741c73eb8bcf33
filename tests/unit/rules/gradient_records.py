"""Records of gradients made by hand, and what the rules on gradients find in them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness.record.deep import DeepObservation, LossFunctionObservation, ParameterObservation
from harness.record.observation import RunObservation
from harness.record.optimizer_observation import OptimizerGroup, OptimizerObservation
from harness.record.step_observation import StepObservation
from harness.rules import (
    accumulation,
    clipping,
    gradient_norms,
    gradients,
    gradients_kept,
    micro_batches,
    unscaled_losses,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.record.run import TrainingRun
    from harness.rules.finding import Finding

    MakeRun = Callable[..., TrainingRun]

RULES = (
    *gradients.RULES,
    *gradients_kept.RULES,
    *micro_batches.RULES,
    *accumulation.RULES,
    *unscaled_losses.RULES,
    *clipping.RULES,
    *gradient_norms.RULES,
)
NAMES = ("first.weight", "blocks.0.fc.weight", "blocks.1.fc.weight", "head.weight")
DEEP_STEPS = (0, 1, 10)
OPTIMIZER = OptimizerObservation("SGD", [OptimizerGroup({"lr": 0.1}, list(NAMES), 1024)], 12)
CALL = LossFunctionObservation(
    name="cross_entropy",
    input_shape=(40, 9),
    target_shape=(40,),
    input_dtype="float32",
    target_dtype="int64",
    reduction="mean",
    share_ignored=0.0,
    value=2.0,
    scale=0.5,
)


def make_parameter(position: int, names: tuple[str, ...] = NAMES, **changes: Any) -> ParameterObservation:
    made = ParameterObservation(
        name=names[position],
        num_elements=256,
        dtype="float32",
        grad_norm=0.5,
        update_norm=0.05,
        weight_norm=4.0,
        took_part=True,
        shape=(16, 16),
        call_position=position,
    )
    return replace(made, **changes)


def make_observation(
    *,
    parameters: Callable[[int, int], dict[str, Any]] = lambda _step, _position: {},
    deep: dict[str, Any] | None = None,
    step: dict[str, Any] | None = None,
    num_steps: int = 12,
    optimizers: int = 1,
) -> RunObservation:
    """A run of one optimizer with four weights, watched in depth on three steps.

    Args:
        parameters: What is different about a parameter, by step and position.
        deep: What is different about every deep step.
        step: What is different about every step.
        num_steps: Steps.
        optimizers: Optimizers that take turns.
    """
    plain: dict[str, Any] = {"loss": 2.0, "losses": [2.0], "num_micro_batches": 1, **(step or {})}
    steps = [
        StepObservation(number, optimizers=[number % optimizers], learning_rates=[[0.1]], **plain)
        for number in range(num_steps)
    ]
    seen: dict[str, Any] = {
        "batch_fingerprints": ["a"],
        "grad_norms_before_backward": [None],
        "grad_norms_after_backward": [1.0],
        "grad_norm": 1.0,
        **(deep or {}),
    }
    deep_steps = [
        DeepObservation(
            number,
            parameters=[make_parameter(place, **parameters(number, place)) for place in range(len(NAMES))],
            **seen,
        )
        for number in DEEP_STEPS
    ]
    return RunObservation(steps=steps, deep_steps=deep_steps, optimizers=[OPTIMIZER] * optimizers)


def find(make_run: MakeRun, observed: RunObservation) -> list[Finding]:
    run = make_run(observed=observed)
    return [found for rule in RULES if rule.find_obstacle(run) is None for found in rule.apply(run)]


def tell(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.code, str(finding.severity)) for finding in findings]
