"""What outputs depend on, and copies of the model: what is wrong is told, and what looks like it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from harness.record.observation import Outcome, RunObservation
from harness.record.step_observation import StepObservation
from harness.record.structure import CopyObservation, LoadObservation, ProbeObservation
from harness.rules import copies, structure
from harness.rules.diagnosis import Diagnosis, diagnose
from harness.rules.finding import Severity

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.record.run import TrainingRun

    MakeRun = Callable[..., TrainingRun]

RULES = (*structure.RULES, *copies.RULES)


def judge(make_run: MakeRun, **changes: Any) -> Diagnosis:
    steps = [StepObservation(step, loss=1.0, optimizers=[0]) for step in range(60)]
    observed = RunObservation(steps=steps, outcome=Outcome.COMPLETED, **changes)
    return diagnose(make_run(observed=observed), RULES)


def make_probe(**changes: Any) -> ProbeObservation:
    found: dict[str, Any] = {
        "num_samples": 8,
        "repeat_change": 0.0,
        "is_constant": False,
        "sample_change": 2e-7,
        "predicts_next": True,
        "future_change": 3e-7,
        "future_position": 3,
        "future_length": 16,
        "ignores_position": False,
    }
    return ProbeObservation("Net", 50, **{**found, **changes})


def make_copy(name: str = "ema", kind: str = "Net", **changes: Any) -> CopyObservation:
    found: dict[str, Any] = {
        "steps": [0, 1, 10, 50],
        "has_moved": [True] * 3,
        "model_has_moved": [True] * 3,
        "distances": [1.0, 1.8, 4.0, 6.0],
    }
    return CopyObservation(name, kind, "train()", "Net", **{**found, **changes})


def test_a_model_that_depends_on_what_it_should_is_clean(make_run: MakeRun) -> None:
    loads = [LoadObservation(20, "Net")]
    diagnosis = judge(make_run, probes=[make_probe()], copies=[make_copy()], loads=loads)
    assert diagnosis.findings == ()
    assert len(diagnosis.applied) == len(RULES)


@pytest.mark.parametrize(
    ("changes", "code", "severity", "told"),
    [
        (
            {"future_change": 0.2, "future_position": 7},
            "T901",
            Severity.ERROR,
            "at position 7 of 16 by 20.0%",
        ),
        ({"sample_change": 0.02}, "T902", Severity.WARNING, "by up to 2.0%"),
        ({"is_constant": True}, "T903", Severity.WARNING, "to the last bit"),
        ({"ignores_position": True}, "T904", Severity.WARNING, "all 16 positions"),
    ],
)
def test_each_wrong_dependence_is_told(
    make_run: MakeRun, changes: dict[str, Any], code: str, severity: Severity, told: str
) -> None:
    (finding,) = judge(make_run, probes=[make_probe(**changes)]).findings
    assert (finding.code, finding.severity, finding.subject) == (code, severity, "Net")
    assert told in finding.message


def test_heads_that_begin_at_zero_are_not_judged(make_run: MakeRun) -> None:
    early = make_probe(is_constant=True, ignores_position=True)
    early.step = 1
    assert judge(make_run, probes=[early]).findings == ()


def test_a_model_that_could_not_be_probed_says_why(make_run: MakeRun) -> None:
    diagnosis = judge(make_run, probes=[make_probe(obstacle="it is compiled or distributed")])
    assert "it is compiled or distributed" in diagnosis.not_applied["T901"]


@pytest.mark.parametrize(("name", "kind"), [("ema", "Net"), ("avg_model", "Net"), ("helper", "ModelEMA")])
def test_an_average_that_never_moves_is_told(make_run: MakeRun, name: str, kind: str) -> None:
    (finding,) = judge(make_run, copies=[make_copy(name, kind, has_moved=[False] * 3)]).findings
    assert (finding.code, finding.severity) == ("T911", Severity.WARNING)
    assert "never moves" in finding.message


@pytest.mark.parametrize(
    "copy",
    [
        make_copy("teacher", has_moved=[False] * 3),
        make_copy("reference", has_moved=[False] * 3),
        make_copy("target", has_moved=[False] * 3),
        make_copy(has_moved=[False], model_has_moved=[True], steps=[0, 10], distances=[1.0, 3.0]),
        make_copy(has_moved=[False] * 3, model_has_moved=[False] * 3),
        make_copy("swa_avg", has_moved=[False] * 3),
        make_copy("averaged", "AveragedModel", has_moved=[False] * 3, num_updates=3),
    ],
    ids=["teacher", "reference", "target", "looked at too early", "nothing moves", "late", "updated later"],
)
def test_copies_that_may_stay_are_silent(make_run: MakeRun, copy: CopyObservation) -> None:
    assert judge(make_run, copies=[copy]).findings == ()


def test_an_averaged_model_without_an_update_is_told(make_run: MakeRun) -> None:
    copy = make_copy("swa_model", "AveragedModel", has_moved=[False] * 3, num_updates=0)
    (finding,) = judge(make_run, copies=[copy]).findings
    assert finding.code == "T911"
    assert "update_parameters() was not called" in finding.message


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"is_same_object": True, "shares_storage": True}, "is the model that trains itself"),
        ({"shares_storage": True, "kind": "dict"}, "holds the model's own tensors"),
        ({"distances": [1.0, 1.1, 1.0, 1.02]}, "1.02 updates away"),
        (
            {"distances": [1.0, 1.1, 1.0, 1.02], "num_updates": 60, "kind": "AveragedModel"},
            "1.02 updates away",
        ),
    ],
)
def test_an_average_that_is_the_model_is_told(make_run: MakeRun, changes: dict[str, Any], told: str) -> None:
    (finding,) = judge(make_run, copies=[make_copy(**changes)]).findings
    assert finding.code == "T912"
    assert told in finding.message


def test_the_model_under_its_own_name_and_a_state_dict_are_silent(make_run: MakeRun) -> None:
    model = make_copy("model", is_same_object=True, shares_storage=True)
    state = make_copy("state", "dict", shares_storage=True)
    assert judge(make_run, copies=[model, state]).findings == ()


def test_an_average_that_is_begun_late_is_silent(make_run: MakeRun) -> None:
    torchs = make_copy("averaged", "AveragedModel", distances=[1.0, 1.1, 1.0, 1.0], num_updates=4)
    own = make_copy("average", has_moved=[False, False, True], distances=[1.0, 2.0, 9.0, 1.0])
    assert judge(make_run, copies=[torchs, own]).findings == ()


def test_an_average_that_training_goes_on_from_is_told(make_run: MakeRun) -> None:
    loads = [LoadObservation(step, "Net", ["ema"]) for step in (20, 40)]
    (finding,) = judge(make_run, copies=[make_copy()], loads=loads).findings
    assert (finding.code, finding.step) == ("T914", 20)
    assert "2 times in 60 steps" in finding.message


@pytest.mark.parametrize(
    "loads",
    [
        [LoadObservation(20, "Net", ["ema"]), LoadObservation(20, "Net", ["backup"])],
        [LoadObservation(60, "Net", ["ema"])],
        [LoadObservation(20, "Net", ["avg_weights"])],
        [LoadObservation(20, "Net", [])],
    ],
    ids=["put back", "at the end", "a round of federated training", "a checkpoint"],
)
def test_weights_loaded_on_purpose_are_silent(make_run: MakeRun, loads: list[LoadObservation]) -> None:
    assert judge(make_run, copies=[make_copy()], loads=loads).findings == ()


def test_a_snapshot_that_follows_is_a_note(make_run: MakeRun) -> None:
    (finding,) = judge(make_run, copies=[make_copy("best_state", "dict", shares_storage=True)]).findings
    assert (finding.code, finding.severity) == ("T913", Severity.NOTE)
