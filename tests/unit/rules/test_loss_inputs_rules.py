"""What reaches the loss functions: scores, targets, and what backward begins at."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from harness.record.deep import (
    BackwardObservation,
    DeepObservation,
    LossFunctionObservation,
    ModuleObservation,
)
from harness.record.observation import RunObservation
from harness.record.optimizer_observation import OptimizerObservation
from harness.record.step_observation import StepObservation
from harness.rules import backwards, scores, target_values, targets
from harness.rules.finding import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.record.run import TrainingRun

    MakeRun = Callable[..., TrainingRun]

RULES = (*backwards.RULES, *scores.RULES, *target_values.RULES, *targets.RULES)
LABELS = LossFunctionObservation(
    name="cross_entropy",
    input_shape=(32, 10),
    target_shape=(32,),
    input_dtype="float32",
    target_dtype="int64",
    reduction="mean",
    ignore_index=-100,
    label_range=(0, 9),
    share_ignored=0.0,
    is_probability=False,
    is_log_probability=False,
    target_equals_input=False,
    value=2.3,
    scale=1.0,
    made_by="addmm",
    class_sums=(-3.0, 4.0),
    input_range=(-1.5, 2.0),
)
NUMBERS = LossFunctionObservation(
    name="mse_loss",
    input_shape=(32, 1),
    target_shape=(32, 1),
    input_dtype="float32",
    target_dtype="float32",
    reduction="mean",
    value=1.0,
    scale=1.0,
    made_by="addmm",
    input_range=(-1.5, 2.0),
    target_range=(-2.0, 2.5),
)
BINARY = replace(
    NUMBERS, name="binary_cross_entropy_with_logits", target_range=(0.0, 1.0), is_probability=False
)


def find(make_run: MakeRun, *calls: LossFunctionObservation, **changes: Any) -> list[Finding]:
    """What the rules find in a run whose three deep steps made these calls."""
    module = ModuleObservation("model", changes.pop("kind", "Linear"))
    deep_steps = [
        DeepObservation(
            step=step,
            modules=[module],
            loss_functions=list(calls),
            backwards=changes.get("backwards", [BackwardObservation()]),
        )
        for step in (0, 1, 10)
    ]
    steps = changes.get("steps", [StepObservation(step=step, loss=1.0, optimizers=[0]) for step in range(11)])
    observed = RunObservation(
        steps=steps, deep_steps=deep_steps, optimizers=[OptimizerObservation("SGD", [])]
    )
    run = make_run(observed=observed)
    return [finding for rule in RULES if rule.find_obstacle(run) is None for finding in rule.apply(run)]


@pytest.mark.parametrize(
    ("calls", "code", "severity", "words"),
    [
        (
            [replace(LABELS, made_by="softmax", is_probability=True, class_sums=(1.0, 1.0))],
            "T301",
            "error",
            "1.46",
        ),
        (
            [replace(LABELS, made_by=None, is_probability=True, class_sums=(1.0, 1.0))],
            "T301",
            "error",
            "logits",
        ),
        (
            [replace(LABELS, made_by="log_softmax", is_log_probability=True)],
            "T301",
            "warning",
            "one of the two",
        ),
        ([replace(LABELS, made_by="sigmoid", input_range=(0.4, 0.6))], "T301", "warning", "0.4 to 0.6"),
        ([replace(BINARY, made_by="sigmoid", is_probability=True)], "T301", "error", "outputs of sigmoid"),
        ([replace(BINARY, made_by="clamp", is_probability=True)], "T301", "warning", "sigmoid"),
        ([replace(BINARY, made_by="relu")], "T301", "warning", "0 and above"),
        (
            [
                replace(
                    LABELS,
                    name="nll_loss",
                    made_by="softmax",
                    input_range=(0.0, 0.4),
                    class_sums=(10.2, 11.0),
                )
            ],
            "T302",
            "error",
            "probabilities",
        ),
        ([replace(LABELS, name="nll_loss", class_sums=(5.0, 30.0))], "T302", "error", "raw scores"),
        ([replace(LABELS, name="kl_div", class_sums=(5.0, 30.0))], "T302", "error", "wrong order"),
        ([replace(LABELS, made_by="softmax", class_sums=(0.2, 3.1))], "T303", "error", "another dimension"),
        (
            [replace(LABELS, name="nll_loss", made_by="log_softmax", class_sums=(0.2, 3.1))],
            "T303",
            "error",
            "the exponentials of their 10 classes",
        ),
        (
            [replace(LABELS, input_shape=(32, 1), label_range=(0, 0), value=0.0)],
            "T304",
            "error",
            "one class only",
        ),
        ([replace(LABELS, scale=-1.0)], "T305", "error", "factor -1"),
        (
            [replace(LABELS, share_ignored=1.0, label_range=None, value=math.nan)],
            "T311",
            "error",
            "all targets",
        ),
        (
            [LABELS, replace(LABELS, share_ignored=1.0, label_range=None, value=0.0)],
            "T311",
            "note",
            "teaches nothing",
        ),
        ([replace(LABELS, target_shift=0)], "T312", "warning", "copying"),
        ([replace(LABELS, target_shift=2)], "T312", "warning", "2 places ahead"),
        ([replace(LABELS, padding_id=0, share_padding=0.3)], "T313", "warning", "30%"),
        ([replace(LABELS, label_range=(4, 4))], "T314", "warning", "are class 4 of 10"),
        ([replace(LABELS, input_shape=(32, 1000), label_range=(0, 9))], "T314", "warning", "1000 classes"),
        (
            [replace(LABELS, input_shape=(64, 8), target_shape=(64,), label_range=(0, 2))],
            "T314",
            "note",
            "above 2",
        ),
        ([replace(BINARY, target_range=(-1.0, 1.0))], "T315", "error", "expects 0 to 1"),
        (
            [replace(NUMBERS, name="margin_ranking_loss", share_odd_signs=0.5)],
            "T315",
            "error",
            "neither 1 nor -1",
        ),
        (
            [replace(LABELS, share_ignored=None, target_range=(-3.0, 3.0), target_sums=(-1.0, 2.0))],
            "T315",
            "warning",
            "probabilities",
        ),
        ([replace(NUMBERS, made_by="sigmoid", share_out_of_reach=0.6)], "T316", "warning", "60%"),
        ([replace(NUMBERS, target_shape=(32,))], "T317", "error", "(32, 1) with targets of shape (32,)"),
        ([replace(LABELS, reduction="sum")], "T318", "note", "summed over 32 samples"),
    ],
)
def test_each_fault_is_the_only_finding(
    make_run: MakeRun, calls: list[LossFunctionObservation], code: str, severity: str, words: str
) -> None:
    (finding,) = find(make_run, *calls)
    assert (finding.code, str(finding.severity), finding.step) == (code, severity, 0)
    assert words in f"{finding.message} {finding.cause}"


@pytest.mark.parametrize(
    "calls",
    [
        [LABELS],
        [NUMBERS],
        [BINARY],
        # Logits that happen to lie between 0 and 1, logits with a cap, and probabilities where they belong.
        [replace(BINARY, is_probability=True, made_by="convolution")],
        [replace(LABELS, made_by="mul", label_range=(0, 9))],
        [replace(BINARY, name="binary_cross_entropy", made_by="sigmoid", is_probability=True)],
        [replace(NUMBERS, made_by="softmax")],
        # Probabilities in one head only are for the other rules; log-probabilities in half precision.
        [replace(LABELS, name="nll_loss", made_by="log_softmax", class_sums=(0.99, 1.01))],
        [
            replace(
                LABELS, name="nll_loss", made_by="log", class_sums=(1.0, 1.0001), input_range=(-9.0, -0.01)
            )
        ],
        [
            replace(
                LABELS, name="kl_div", made_by="log_softmax", class_sums=(1.0, 1.0), input_range=(-9.0, -0.1)
            )
        ],
        # Contrastive: labels are positions, or all 0 over scores with a temperature.
        [replace(LABELS, input_shape=(32, 32), label_range=(0, 31), are_labels_positions=True, made_by="mm")],
        [replace(LABELS, input_shape=(32, 65), label_range=(0, 0), made_by="div")],
        # Adversarial: one class in each call, two over all.
        [replace(LABELS, label_range=(0, 0)), replace(LABELS, label_range=(9, 9))],
        # A language model uses a part of its vocabulary; one head of several looks further ahead.
        [
            replace(
                LABELS, input_shape=(512, 50_000), target_shape=(512,), label_range=(0, 90), target_shift=1
            )
        ],
        [replace(LABELS, target_shift=1), replace(LABELS, target_shift=2)],
        # Padding that is recognised and ignored, and padding weighted with 0.
        [replace(LABELS, padding_id=0, share_padding=0.0)],
        [replace(LABELS, padding_id=0, share_padding=0.4, has_weight=True)],
        # An adversarial part beside an ordinary one.
        [LABELS, replace(LABELS, scale=-0.1)],
        # Some prompts are cut off, and masks of soft targets.
        [replace(BINARY, target_range=(-1.0, 1.0), reduction="none")],
        # One target for all, and noise around zero.
        [replace(NUMBERS, target_shape=(1,))],
        [replace(NUMBERS, input_shape=(32, 5), target_shape=(32, 1))],
        [replace(NUMBERS, made_by="relu", share_out_of_reach=0.04)],
        # Summed and divided by tokens; a variational autoencoder.
        [replace(LABELS, reduction="sum", scale=1 / 512)],
        [replace(NUMBERS, reduction="sum")],
        # No training: a metric.
        [LABELS, replace(LABELS, is_training=False, made_by="softmax", is_probability=True)],
    ],
)
def test_look_alikes_are_no_finding(make_run: MakeRun, calls: list[LossFunctionObservation]) -> None:
    assert find(make_run, *calls) == []


def test_probabilities_in_some_calls_only_are_let_through(make_run: MakeRun) -> None:
    assert find(make_run, LABELS, replace(LABELS, made_by="softmax", class_sums=(1.0, 1.0))) == []


def test_copying_is_an_error_where_the_model_says_it_is_causal(make_run: MakeRun) -> None:
    (finding,) = find(make_run, replace(LABELS, target_shift=0), kind="GPT2LMHeadModel")
    assert finding.severity is Severity.ERROR


def test_a_summed_loss_is_a_warning_where_plain_steps_are_large(make_run: MakeRun) -> None:
    steps = [StepObservation(step=step, loss=1.0, optimizers=[0], update_to_weight=0.4) for step in range(11)]
    (finding,) = find(make_run, replace(LABELS, reduction="sum"), steps=steps)
    assert (finding.code, finding.severity) == ("T318", Severity.WARNING)
    assert "40%" in finding.message


def test_a_negated_loss_of_one_of_several_optimizers_is_a_game(make_run: MakeRun) -> None:
    steps = [StepObservation(step=step, loss=1.0, optimizers=[step % 2]) for step in range(11)]
    assert find(make_run, replace(LABELS, scale=-1.0), steps=steps) == []


def test_a_loss_made_anew_is_cut_off(make_run: MakeRun) -> None:
    (finding,) = find(make_run, LABELS, backwards=[BackwardObservation(is_leaf=True)])
    assert (finding.code, finding.severity) == ("T306", Severity.ERROR)


def test_a_difference_by_hand_that_became_a_square_is_told(make_run: MakeRun) -> None:
    (finding,) = find(make_run, backwards=[BackwardObservation(False, (32, 1), (32, 32))])
    assert (finding.code, finding.severity) == ("T317", Severity.WARNING)
    assert "(32, 1) with targets of shape (32,)" in finding.message


def test_a_run_that_was_not_watched_says_so(make_run: MakeRun) -> None:
    assert {rule.find_obstacle(make_run()) for rule in scores.RULES} == {"the run was not watched"}


def test_a_loss_in_half_precision_is_a_note(make_run: MakeRun) -> None:
    half = replace(LABELS, input_dtype="bfloat16")
    (finding,) = find(make_run, half)
    assert (finding.code, finding.severity) == ("T319", Severity.NOTE)
    assert find(make_run, half, LABELS) == []
