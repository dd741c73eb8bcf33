"""Training and evaluation mode: what is wrong is told, and what looks like it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from harness.record.deep import DeepObservation
from harness.record.observation import EvaluationObservation, Outcome, RunObservation
from harness.record.optimizer_observation import OptimizerGroup, OptimizerObservation
from harness.record.step_observation import StepObservation
from harness.record.structure import CopyObservation, PassObservation, ProbeObservation
from harness.rules import evaluation, modes
from harness.rules.diagnosis import diagnose
from harness.rules.finding import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.record.run import TrainingRun

    MakeRun = Callable[..., TrainingRun]

RULES = (*modes.RULES, *evaluation.RULES)
DROPOUT = ["dropout (Dropout)"]
BATCH_NORM = ["norm (BatchNorm1d)"]


def make_pass(*, is_training: bool = True, acting: list[str] = DROPOUT, **changes: Any) -> PassObservation:
    names = {"active": list(acting)} if is_training else {"inactive": list(acting)}
    found = {
        "num_calls": 1,
        "got_gradient": True,
        "num_trained": 4,
        "num_dropouts": acting == DROPOUT,
        **names,
    }
    return PassObservation("Net", is_training, with_gradient=True, **{**found, **changes})


def make_evaluation(after_step: int, **changes: Any) -> EvaluationObservation:
    found = {"num_forwards": 2, "num_trained": 2, "modules": ["Net"], **changes}
    return EvaluationObservation(after_step, **found)


def observe(in_eval: set[int] = frozenset(), acting: list[str] = DROPOUT, **changes: Any) -> RunObservation:  # type: ignore[assignment]
    """Forty steps, some of them in eval mode, with an evaluation every ten."""
    steps = [
        StepObservation(
            step,
            loss=1.0,
            optimizers=[0],
            num_micro_batches=1,
            batch_shapes=[] if step in in_eval else [[(8, 4)]],
        )
        for step in range(40)
    ]
    evaluations = {step: make_evaluation(step) for step in (10, 20, 30, 40)}
    for step in in_eval:
        found = evaluations.setdefault(step, make_evaluation(step, num_forwards=1, num_trained=1))
        found.num_with_gradient = found.num_trained_with_gradient = 1
    deep_steps = [
        DeepObservation(step, passes=[make_pass(is_training=step not in in_eval, acting=acting)])
        for step in (0, 1, 10, 35)
    ]
    observed = RunObservation(
        steps=steps,
        deep_steps=deep_steps,
        evaluations=[evaluations[step] for step in sorted(evaluations)],
        optimizers=[OptimizerObservation("Adam", [OptimizerGroup({"lr": 0.1}, ["weight"], 4)], 40)],
        outcome=Outcome.COMPLETED,
    )
    for key, value in changes.items():
        setattr(observed, key, value)
    return observed


def find(make_run: MakeRun, observed: RunObservation) -> list[Finding]:
    return list(diagnose(make_run(observed=observed), RULES).findings)


def test_a_clean_run_has_no_finding(make_run: MakeRun) -> None:
    assert find(make_run, observe()) == []


def test_a_model_left_in_eval_mode_is_an_error_that_says_since_when(make_run: MakeRun) -> None:
    (finding,) = find(make_run, observe(set(range(10, 40))))
    assert (finding.code, finding.severity, finding.step) == ("T701", Severity.ERROR, 10)
    assert "from step 10 on" in finding.message
    assert "since the evaluation after 10 steps" in finding.message
    assert "`dropout (Dropout)`" in finding.message


def test_steps_in_eval_mode_between_others_are_told_too(make_run: MakeRun) -> None:
    (finding,) = find(make_run, observe({20, 21, 30, 31}))
    assert finding.code == "T701"
    assert "4 of 40 steps" in finding.message


def test_a_mode_that_means_nothing_and_a_deep_step_that_says_otherwise_are_silent(make_run: MakeRun) -> None:
    assert find(make_run, observe(set(range(10, 40)), acting=[])) == []
    observed = observe(set(range(10, 40)))
    observed.deep_steps[-1].passes = [make_pass()]
    assert find(make_run, observed) == []


def test_a_module_that_looks_at_the_mode_itself_is_a_warning(make_run: MakeRun) -> None:
    observed = observe(set(range(10, 40)), acting=[])
    for deep in observed.deep_steps:
        deep.passes[0].asking = ["the model (Noisy)"]
    (finding,) = find(make_run, observed)
    assert (finding.code, finding.severity) == ("T701", Severity.WARNING)
    assert "`the model (Noisy)`" in finding.message


def test_one_of_two_models_left_in_eval_mode_is_told_by_deep_steps(make_run: MakeRun) -> None:
    observed = observe()
    for step in observed.steps:
        step.optimizers = [step.step % 2]
    observed.optimizers *= 2
    assert find(make_run, observed) == []
    observed.deep_steps[-1].passes = [make_pass(is_training=False)]
    (finding,) = find(make_run, observed)
    assert (finding.code, finding.severity, finding.step) == ("T701", Severity.WARNING, 35)


def test_a_forward_in_eval_mode_beside_one_in_training_mode_is_silent(make_run: MakeRun) -> None:
    observed = observe()
    observed.evaluations = [
        make_evaluation(step, num_with_gradient=1, num_trained_with_gradient=1) for step in range(40)
    ]
    assert find(make_run, observed) == []


def test_a_model_that_never_trains_in_training_mode_is_told(make_run: MakeRun) -> None:
    (finding,) = find(make_run, observe(set(range(40)), evaluations=[]))
    assert (finding.code, finding.severity) == ("T702", Severity.WARNING)


def test_frozen_batch_norm_and_lbfgs_are_notes(make_run: MakeRun) -> None:
    (finding,) = find(make_run, observe(set(range(40)), acting=BATCH_NORM, evaluations=[]))
    assert finding.severity is Severity.NOTE
    observed = observe(set(range(40)), evaluations=[])
    observed.optimizers[0].name = "LBFGS"
    assert [finding.severity for finding in find(make_run, observed)] == [Severity.NOTE]


def test_batch_norm_without_statistics_in_eval_mode_is_told(make_run: MakeRun) -> None:
    observed = observe(set(range(40)), acting=BATCH_NORM, evaluations=[])
    for deep in observed.deep_steps:
        deep.passes[0].num_untouched_batch_norms = 1
    (finding,) = find(make_run, observed)
    assert (finding.code, finding.severity) == ("T702", Severity.WARNING)
    assert "born with" in finding.message


def test_evaluation_in_training_mode_is_told(make_run: MakeRun) -> None:
    evaluations = [make_evaluation(step, num_trained_in_training_mode=2) for step in (10, 20, 30)]
    (finding,) = find(make_run, observe(evaluations=evaluations))
    assert (finding.code, finding.severity) == ("T703", Severity.WARNING)
    assert "6 evaluation passes" in finding.message
    (finding,) = find(make_run, observe(evaluations=[*evaluations, make_evaluation(40)]))
    assert finding.severity is Severity.NOTE


@pytest.mark.parametrize(
    "changes",
    [
        {"evaluations": [make_evaluation(step, num_trained_in_training_mode=1) for step in range(40)]},
        {"evaluations": [make_evaluation(10, num_in_training_mode=2, num_trained=0)]},
        {"evaluations": [make_evaluation(10, num_trained_in_training_mode=2)], "environments": ["gymnasium"]},
    ],
    ids=["part of the step", "a teacher", "roll-outs"],
)
def test_passes_in_training_mode_on_purpose_are_silent(make_run: MakeRun, changes: dict[str, Any]) -> None:
    assert find(make_run, observe(**changes)) == []


def test_evaluation_that_records_a_graph_is_told(make_run: MakeRun) -> None:
    evaluations = [make_evaluation(step, num_trained_with_gradient=2) for step in (10, 20, 40)]
    (finding,) = find(make_run, observe(evaluations=evaluations))
    assert (finding.code, finding.severity) == ("T704", Severity.WARNING)
    (finding,) = find(make_run, observe(evaluations=[make_evaluation(40, num_trained_with_gradient=1)]))
    assert finding.severity is Severity.NOTE


def test_graphs_that_something_may_use_are_silent(make_run: MakeRun) -> None:
    evaluations = [make_evaluation(step, num_trained_with_gradient=2) for step in (10, 20)]
    assert (
        find(make_run, observe(evaluations=evaluations, not_seen=["torch.autograd.grad was called: ..."]))
        == []
    )
    observed = observe(evaluations=evaluations)
    for step in observed.steps:
        step.num_micro_batches = 2
    assert find(make_run, observed) == []


def make_copy(**changes: Any) -> CopyObservation:
    found: dict[str, Any] = {
        "steps": [0, 1, 10, 35],
        "has_moved": [False] * 3,
        "model_has_moved": [True] * 3,
        "distances": [1.0, 1.9, 8.0, 20.0],
        "num_evaluations": 6,
        "num_evaluated_steps": 3,
    }
    return CopyObservation("shown", "Net", "train()", "Net", **{**found, **changes})


def test_evaluation_of_the_first_weights_is_told(make_run: MakeRun) -> None:
    evaluations = [make_evaluation(step, num_trained=0) for step in (10, 20, 30)]
    (finding,) = find(make_run, observe(evaluations=evaluations, copies=[make_copy()]))
    assert finding.code == "T705"
    assert "`shown` in train()" in finding.message


@pytest.mark.parametrize(
    ("copy", "num_trained"),
    [
        (make_copy(), 2),
        (make_copy(has_moved=[False, True, True]), 0),
        (make_copy(num_evaluated_steps=40), 0),
        (make_copy(distances=[70.0] * 4), 0),
    ],
    ids=["the model is evaluated too", "an average", "a reference of every step", "a teacher"],
)
def test_evaluation_of_other_copies_is_silent(
    make_run: MakeRun, copy: CopyObservation, num_trained: int
) -> None:
    evaluations = [make_evaluation(step, num_trained=num_trained) for step in (10, 20, 30)]
    assert find(make_run, observe(evaluations=evaluations, copies=[copy])) == []


def test_batch_norm_that_never_moves_is_told_and_one_of_another_library_is_a_note(make_run: MakeRun) -> None:
    observed = observe(acting=BATCH_NORM)
    observed.deep_steps[0].passes[0].batch_norm_momenta = [0.0, 0.1]
    observed.deep_steps[0].passes[0].still_batch_norms = ["norm"]
    (finding,) = find(make_run, observed)
    assert (finding.code, finding.subject, finding.severity) == ("T706", "norm", Severity.WARNING)
    observed.deep_steps[0].passes[0].batch_norm_momenta = [0.99]
    observed.deep_steps[0].passes[0].still_batch_norms = []
    assert [finding.severity for finding in find(make_run, observed)] == [Severity.NOTE]
    observed.deep_steps[0].passes[0].batch_norm_momenta = [0.01, 0.1]
    assert find(make_run, observed) == []


def test_dropout_in_eval_mode_is_told(make_run: MakeRun) -> None:
    probe = ProbeObservation("Net", 35, repeat_change=0.2, dropouts=["dropout in head (Head)"])
    (finding,) = find(make_run, observe(probes=[probe]))
    assert (finding.code, finding.severity) == ("T707", Severity.WARNING)
    assert "dropout in head (Head)" in finding.message


def test_noise_on_purpose_is_silent_and_unknown_noise_is_a_note(make_run: MakeRun) -> None:
    noisy = ProbeObservation("Net", 35, repeat_change=0.2, random_functions=["randn_like"])
    assert find(make_run, observe(probes=[noisy])) == []
    (finding,) = find(make_run, observe(probes=[ProbeObservation("Net", 35, repeat_change=0.2)]))
    assert finding.severity is Severity.NOTE
    assert find(make_run, observe(probes=[ProbeObservation("Net", 35, repeat_change=1e-6)])) == []
