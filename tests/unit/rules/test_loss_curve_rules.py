"""The loss beside chance, and what happens on its way down."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from harness.record.deep import DeepObservation, LossFunctionObservation
from harness.record.loader_observation import EpochObservation, LoaderObservation
from harness.record.observation import RunObservation
from harness.record.step_observation import StepObservation
from harness.rules import anomalies, chance
from harness.rules.finding import Finding, Severity
from harness.rules.loss import LOSS_NOT_DECREASING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.record.run import TrainingRun

    MakeRun = Callable[..., TrainingRun]

RULES = (*chance.RULES, *anomalies.RULES)
NOISE = random.Random(0)
FALLING = [0.3 + 2.0 * 0.93**step + NOISE.gauss(0, 0.03) for step in range(60)]
AT_CHANCE = [math.log(10) + NOISE.gauss(0, 0.02) for _ in range(60)]
CALL = LossFunctionObservation(
    name="cross_entropy",
    input_shape=(32, 10),
    target_shape=(32,),
    input_dtype="float32",
    target_dtype="int64",
    reduction="mean",
    ignore_index=-100,
    label_range=(0, 9),
    share_ignored=0.0,
    value=2.3,
    scale=1.0,
    made_by="addmm",
)


def find(
    make_run: MakeRun,
    losses: Sequence[float],
    *,
    rates: Sequence[float] = (),
    epochs: Sequence[int] = (0,),
    num_samples: int = 320,
    call: LossFunctionObservation | None = CALL,
    **changes: Any,
) -> list[Finding]:
    """What the rules find in a run with these losses, and the epochs that began after these steps."""
    steps = [
        StepObservation(
            step=step,
            loss=loss,
            optimizers=[0],
            num_samples=32,
            learning_rates=[[rates[step] if rates else 0.1]],
        )
        for step, loss in enumerate(losses)
    ]
    deep_steps = [
        DeepObservation(step=step, loss_functions=[replace(call, value=losses[step])])
        for step in (0, 1, 10)
        if call is not None and step < len(losses)
    ]
    loader = LoaderObservation("Set", num_samples, 32, 0, "RandomSampler", drop_last=False)
    loader.epochs = [EpochObservation(after_step=step, num_batches=10) for step in epochs]
    observed = RunObservation(steps=steps, deep_steps=deep_steps, loaders=[loader])
    run = make_run(losses, observed=observed, **changes)
    return [finding for rule in RULES if rule.find_obstacle(run) is None for finding in rule.apply(run)]


def codes(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.code, str(finding.severity)) for finding in findings]


def test_a_start_far_above_chance_is_a_warning_with_both_numbers(make_run: MakeRun) -> None:
    (finding,) = find(make_run, [14.0 * loss for loss in FALLING])
    assert (finding.code, finding.severity, finding.step) == ("T102", Severity.WARNING, 0)
    assert "ln(10) = 2.303" in finding.message


def test_a_head_of_zeros_is_let_through(make_run: MakeRun) -> None:
    assert find(make_run, [math.log(10), *FALLING]) == []


@pytest.mark.parametrize(
    "call",
    [
        replace(CALL, made_by="div", label_range=(0, 0)),
        replace(CALL, are_labels_positions=True),
        replace(CALL, has_weight=True),
        replace(CALL, input_shape=(4, 10), target_shape=(4,)),
    ],
)
def test_a_sure_start_of_other_losses_is_let_through(
    make_run: MakeRun, call: LossFunctionObservation
) -> None:
    assert find(make_run, [14.0 * loss for loss in FALLING], call=call) == []


def test_a_loss_that_falls_and_then_explodes_diverges(make_run: MakeRun) -> None:
    losses = [*FALLING[:40], *(1.0 + 0.5 * step for step in range(20))]
    finding = find(make_run, losses)[0]
    assert (finding.code, finding.severity) == ("T103", Severity.WARNING)
    assert "falls from 1.9" in finding.message


def test_a_search_for_a_learning_rate_may_explode(make_run: MakeRun) -> None:
    losses = [*FALLING[:40], *(1.0 + 0.5 * step for step in range(20))]
    assert find(make_run, losses, rates=[1e-4 * 1.1**step for step in range(60)]) == []


def test_a_harder_lesson_that_stays_below_the_start_is_no_divergence(make_run: MakeRun) -> None:
    assert find(make_run, [*FALLING[:40], *(loss + 0.6 for loss in FALLING[40:])]) == []


@pytest.mark.parametrize(("spike", "severity"), [(400.0, "warning"), (3.0, "note")])
def test_one_loss_far_above_its_neighbours_is_a_spike(make_run: MakeRun, spike: float, severity: str) -> None:
    losses = [*FALLING[:45], spike, *FALLING[46:]]
    (finding,) = find(make_run, losses)
    assert (finding.code, str(finding.severity), finding.step) == ("T105", severity, 45)
    # Both bounds are told: many times the losses before it alone makes no warning.
    assert "a warning above 20 times that, where it is also above" in finding.message


def test_noise_has_no_spikes(make_run: MakeRun) -> None:
    noise = random.Random(1)
    losses = [loss * noise.lognormvariate(0, 0.5) for loss in FALLING]
    assert find(make_run, losses, call=None) == []


def test_a_loss_that_comes_back_to_its_start_again_and_again_is_told(make_run: MakeRun) -> None:
    assert codes(find(make_run, FALLING[:20] * 3)) == [("T106", "warning")]


def test_a_classifier_at_chance_after_several_epochs_is_a_warning(make_run: MakeRun) -> None:
    (finding,) = find(make_run, AT_CHANCE, epochs=(0, 20, 40))
    assert (finding.code, finding.severity) == ("T107", Severity.WARNING)
    assert "gives 2.303" in finding.message


def test_chance_within_the_first_epoch_is_no_finding(make_run: MakeRun) -> None:
    assert find(make_run, AT_CHANCE, epochs=(0,)) == []


def test_first_steps_that_throw_the_loss_up_are_a_warning(make_run: MakeRun) -> None:
    losses = [2.3, 11.0, 5.0, 6.0, 6.0, 5.0, *FALLING]
    (finding,) = find(make_run, losses, call=replace(CALL, value=None))
    assert (finding.code, finding.severity, finding.step) == ("T108", Severity.WARNING, 1)


@pytest.mark.parametrize(
    "call", [None, replace(CALL, are_labels_positions=True), replace(CALL, made_by="div")]
)
def test_other_losses_may_rise_first(make_run: MakeRun, call: LossFunctionObservation | None) -> None:
    assert find(make_run, [2.3, 11.0, 5.0, 6.0, 6.0, 5.0, *FALLING], call=call) == []


def test_a_perfect_first_pass_is_a_note(make_run: MakeRun) -> None:
    losses = [2.3 * 0.8**step for step in range(60)]
    assert codes(find(make_run, losses, num_samples=5000)) == [("T104", "note")]
    assert find(make_run, losses, num_samples=320) == []


def test_a_falling_loss_is_clean(make_run: MakeRun) -> None:
    assert find(make_run, FALLING, epochs=(0, 20, 40)) == []


def test_a_surrogate_loss_that_changes_its_sign_may_rise(make_run: MakeRun) -> None:
    rising = [-0.3 + 0.01 * step for step in range(60)]
    (finding,) = LOSS_NOT_DECREASING.apply(make_run(rising))
    assert finding.severity is Severity.NOTE
    (finding,) = LOSS_NOT_DECREASING.apply(make_run([loss + 1 for loss in rising]))
    assert finding.severity is Severity.ERROR
