from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import pytest

from harness.record.observation import RunObservation
from harness.record.run import Step, TrainingRun
from harness.rules.catalogue import RULES
from harness.rules.diagnosis import diagnose
from harness.rules.finding import Severity
from harness.rules.finite import NON_FINITE_METRIC
from harness.rules.loss import LOSS_NOT_DECREASING

if TYPE_CHECKING:
    from collections.abc import Callable

    MakeRun = Callable[..., TrainingRun]

NOISE = random.Random(0)
FALLING = [3 * 0.9**step for step in range(20)]


@pytest.mark.parametrize(
    ("losses", "message", "cause"),
    [
        ([2.3] * 12, "every one of the 12 losses is 2.3", "learning rate 0"),
        ([1.0 + step for step in range(12)], "the loss rises from", "learning rate too high"),
    ],
)
def test_a_loss_that_does_not_fall_is_an_error_that_says_how_and_why(
    make_run: MakeRun, losses: list[float], message: str, cause: str
) -> None:
    (finding,) = diagnose(make_run(losses)).errors
    assert (finding.code, finding.name, finding.subject) == ("T101", "loss-not-decreasing", "loss")
    assert message in finding.message
    assert "(return value)" in finding.message
    assert cause in finding.cause


def test_a_loss_too_noisy_to_tell_is_a_note_and_no_error(make_run: MakeRun) -> None:
    diagnosis = diagnose(make_run([2.0, 1.5, 2.2, 1.7, 1.9, 1.8]))
    (finding,) = diagnosis.findings
    assert finding.severity is Severity.NOTE
    assert diagnosis.errors == []


def test_a_falling_loss_is_clean(make_run: MakeRun) -> None:
    diagnosis = diagnose(make_run(FALLING))
    assert diagnosis.findings == ()
    assert {"T201", "T101"} <= set(diagnosis.applied)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_first_number_that_is_not_finite_is_named_with_its_step(make_run: MakeRun, value: float) -> None:
    steps = [Step(10 * step, {"loss": loss, "grad_norm": 1.0}) for step, loss in enumerate(FALLING)]
    steps[3].metrics["grad_norm"] = value
    steps[4].metrics |= {"grad_norm": value, "loss": value}
    diagnosis = diagnose(make_run(steps=steps))
    (finding,) = diagnosis.errors
    assert (finding.code, finding.subject, finding.step) == ("T201", "grad_norm", 30)
    assert f"grad_norm is {value} at step 30" in finding.message
    assert "2 of 20 values" in finding.message
    assert diagnosis.not_applied["T101"] == "the loss is not finite throughout"


def test_other_metrics_that_break_at_the_same_step_are_named_too(make_run: MakeRun) -> None:
    (finding,) = diagnose(make_run(steps=[Step(0, {"loss": math.nan, "lr": 0.1, "norm": math.inf})])).errors
    assert "(also norm)" in finding.message


def test_five_losses_are_too_few_to_judge(make_run: MakeRun) -> None:
    diagnosis = diagnose(make_run(FALLING[:5]))
    assert diagnosis.not_applied["T101"] == "it needs 6 losses, the run has 5"


def test_the_rising_loss_of_reinforcement_learning_is_not_judged(make_run: MakeRun) -> None:
    rising = [1.0 + step for step in range(12)]
    diagnosis = diagnose(make_run(rising, observed=RunObservation(environments=["gymnasium"])))
    assert diagnosis.findings == ()
    assert "reinforcement learning" in diagnosis.not_applied["T101"]


def test_a_run_without_a_step_has_no_rule_that_applies(make_run: MakeRun) -> None:
    diagnosis = diagnose(make_run(steps=[]))
    assert diagnosis.applied == ()
    assert {LOSS_NOT_DECREASING.code, NON_FINITE_METRIC.code} <= set(diagnosis.not_applied)


def test_codes_and_names_of_rules_are_unique() -> None:
    assert len({rule.code for rule in RULES}) == len({rule.name for rule in RULES}) == len(RULES)


def test_a_finding_is_json_data(make_run: MakeRun) -> None:
    (finding,) = diagnose(make_run([2.0] * 9)).findings
    assert finding.to_json()["severity"] == "error"
    assert finding.to_json()["code"] == "T101"
