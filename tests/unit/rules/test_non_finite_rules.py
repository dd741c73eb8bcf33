"""Where the first number that is not finite came from, and what a GradScaler makes of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from harness.record.deep import (
    BackwardObservation,
    DeepObservation,
    LossFunctionObservation,
    ParameterObservation,
)
from harness.record.observation import NonFiniteObservation, RunObservation
from harness.record.optimizer_observation import ScalerObservation
from harness.record.step_observation import StepObservation
from harness.rules import first_non_finite, loss_scaling
from harness.rules.diagnosis import diagnose
from harness.rules.finding import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.record.run import TrainingRun

    MakeRun = Callable[..., TrainingRun]

RULES = (*first_non_finite.RULES, *loss_scaling.RULES)


def make_steps(first_nan: int | None, num: int = 12, **changes: Any) -> list[StepObservation]:
    return [
        StepObservation(
            step=step,
            loss=math.nan if first_nan is not None and step >= first_nan else 2.0 - step / 20,
            optimizers=[0],
            **changes,
        )
        for step in range(num)
    ]


def make_deep(step: int, grad_norms: list[float], **changes: Any) -> DeepObservation:
    parameters = [
        ParameterObservation(
            name,
            4,
            "float32",
            grad_norm=norm,
            weight_norm=changes.get("weight_norm", 1.0),
            call_position=place,
        )
        for place, (name, norm) in enumerate(zip(("first.weight", "last.weight"), grad_norms, strict=True))
    ]
    return DeepObservation(
        step=step,
        parameters=parameters,
        backwards=changes.get("backwards", []),
        first_non_finite_module=changes.get("module"),
    )


def find(make_run: MakeRun, observed: RunObservation) -> list[Finding]:
    run = make_run([step.loss for step in observed.steps], observed=observed)
    return [finding for rule in RULES if rule.find_obstacle(run) is None for finding in rule.apply(run)]


def test_the_gradient_nearest_to_the_loss_and_the_operation_are_named(make_run: MakeRun) -> None:
    steep = [BackwardObservation(steep_operations=["sqrt of 0"])]
    deep = make_deep(0, [math.nan, math.nan], backwards=steep)
    observed = RunObservation(steps=make_steps(1), deep_steps=[deep])
    observed.non_finite = NonFiniteObservation(1, ["first.weight"], 2, 2)
    (finding,) = find(make_run, observed)
    assert (finding.code, finding.subject, finding.step) == ("T202", "last.weight", 0)
    assert "sqrt of 0" in finding.message
    run = make_run([step.loss for step in observed.steps], observed=observed)
    explained = {found.code: found.explained_by for found in diagnose(run).findings}
    assert explained["T201"] == "T202"


def test_parameters_that_a_finite_loss_left_broken_are_named(make_run: MakeRun) -> None:
    observed = RunObservation(steps=make_steps(5, grad_norm=7.0), deep_steps=[make_deep(0, [1.0, 1.0])])
    observed.non_finite = NonFiniteObservation(5, ["first.weight"], 1, 2, risky_operations={"sqrt": 2})
    (finding,) = find(make_run, observed)
    assert (finding.code, finding.subject, finding.step) == ("T202", "first.weight", 4)
    assert "1 of 2 parameters" in finding.message
    assert "the gradient norm of that step was 7" in finding.message
    assert "sqrt (2)" in finding.cause


def test_the_operation_that_made_the_first_number_is_named(make_run: MakeRun) -> None:
    observed = RunObservation(steps=make_steps(5), deep_steps=[make_deep(0, [1.0, 1.0])])
    observed.non_finite = NonFiniteObservation(
        5, [], 0, 2, operation="log", detail="was given 0 or less", after=["last.weight"]
    )
    (finding,) = find(make_run, observed)
    assert (finding.code, finding.subject, finding.step) == ("T203", "log", 5)
    assert "log was given 0 or less, after the parameter `last.weight`" in finding.message


def test_the_module_is_named_on_a_deep_step(make_run: MakeRun) -> None:
    observed = RunObservation(
        steps=make_steps(1), deep_steps=[make_deep(1, [1.0, 1.0], module="blocks.0.norm")]
    )
    (finding,) = find(make_run, observed)
    assert (finding.code, finding.subject) == ("T203", "blocks.0.norm")


def test_data_that_are_not_finite_are_told_from_operations(make_run: MakeRun) -> None:
    observed = RunObservation(steps=make_steps(5), deep_steps=[make_deep(0, [1.0, 1.0])])
    observed.non_finite = NonFiniteObservation(
        5, [], 0, 2, operation="addmm", detail="was given NaN", is_from_data=True
    )
    (finding,) = find(make_run, observed)
    assert (finding.code, finding.subject) == ("T203", "inputs")


def test_a_finite_run_with_minus_infinity_in_a_module_is_clean(make_run: MakeRun) -> None:
    observed = RunObservation(steps=make_steps(None), deep_steps=[make_deep(1, [1.0, 1.0], module="mask")])
    assert find(make_run, observed) == []


def test_infinite_gradients_of_a_skipped_step_are_clean(make_run: MakeRun) -> None:
    steps = make_steps(None)
    steps[0].was_skipped = True
    observed = RunObservation(steps=steps, deep_steps=[make_deep(0, [math.inf, math.inf])])
    observed.scaler = ScalerObservation(num_scaled=12, num_steps=12, num_skipped=1, last_scale=32768.0)
    assert find(make_run, observed) == []


@pytest.mark.parametrize(
    ("num_skipped", "scale", "severity"), [(12, 16.0, Severity.ERROR), (3, 1e-3, Severity.WARNING)]
)
def test_a_scaler_that_finds_no_scale_is_told(
    make_run: MakeRun, num_skipped: int, scale: float, severity: Severity
) -> None:
    steps = make_steps(None)
    for step in steps[:num_skipped]:
        step.was_skipped = True
    observed = RunObservation(steps=steps)
    observed.scaler = ScalerObservation(
        num_scaled=12, num_steps=12, num_skipped=num_skipped, last_scale=scale
    )
    (finding,) = find(make_run, observed)
    assert (finding.code, finding.severity) == ("T204", severity)


def test_a_scaled_loss_without_a_step_of_the_scaler_is_told(make_run: MakeRun) -> None:
    observed = RunObservation(steps=make_steps(None), scaler=ScalerObservation(num_scaled=12))
    (finding,) = find(make_run, observed)
    assert finding.code == "T204"
    assert "its step was never called" in finding.message


def test_the_first_steps_of_a_scaler_are_skipped_on_purpose(make_run: MakeRun) -> None:
    steps = make_steps(None)
    for step in steps[:5]:
        step.was_skipped = True
    observed = RunObservation(steps=steps)
    observed.scaler = ScalerObservation(num_scaled=12, num_steps=12, num_skipped=5, last_scale=2048.0)
    assert find(make_run, observed) == []


def test_an_infinite_gradient_behind_skipped_steps_is_named(make_run: MakeRun) -> None:
    steps = make_steps(None, was_skipped=True)
    deep_steps = [
        DeepObservation(step, backwards=[BackwardObservation(steep_operations=["sqrt of 0"])])
        for step in (0, 1, 10)
    ]
    observed = RunObservation(steps=steps, deep_steps=deep_steps)
    observed.scaler = ScalerObservation(num_scaled=12, num_steps=12, num_backwards=12, last_scale=1e-3)
    assert [finding.code for finding in find(make_run, observed)] == ["T202", "T204"]


def test_a_scaled_loss_that_never_reaches_backward_is_told(make_run: MakeRun) -> None:
    call = LossFunctionObservation("mse_loss", (4, 1), (4, 1), "float32", "float32", "mean", scale=1.0)
    observed = RunObservation(steps=make_steps(None))
    observed.deep_steps = [DeepObservation(step, loss_functions=[call], loss_scale=1024.0) for step in (0, 1)]
    observed.scaler = ScalerObservation(num_scaled=12, num_steps=12, last_scale=1024.0)
    (finding,) = find(make_run, observed)
    assert finding.code == "T204"
    assert "no backward began at any" in finding.message
    # Divided after it was scaled, so that backward began at another tensor.
    call.scale = 256.0
    assert find(make_run, observed) == []
