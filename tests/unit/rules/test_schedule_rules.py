"""Learning rates and schedulers: what is wrong is told, and what looks like it is not."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import pytest

from harness.record.deep import DeepObservation
from harness.record.loader_observation import EpochObservation, LoaderObservation
from harness.record.observation import Outcome, RunObservation
from harness.record.optimizer_observation import OptimizerGroup, OptimizerObservation, SchedulerObservation
from harness.record.step_observation import StepObservation
from harness.rules import rate_course, rates, schedule
from harness.rules.diagnosis import diagnose
from harness.rules.finding import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.record.run import TrainingRun

    MakeRun = Callable[..., TrainingRun]

RULES = (*rates.RULES, *schedule.RULES, *rate_course.RULES)
COSINE = [0.05 * (1 + math.cos(math.pi * step / 40)) for step in range(40)]


def observe(
    values: Sequence[float],
    *schedulers: SchedulerObservation,
    name: str = "SGD",
    base: float | None = None,
    update: float | None = 1e-3,
    **changes: Any,
) -> RunObservation:
    """A run of one optimizer with one group, stepping with these rates."""
    hyperparameters = {"lr": values[0], **({} if base is None else {"initial_lr": base})}
    group = OptimizerGroup(hyperparameters, ["weight"], 4)
    steps = [
        StepObservation(step, loss=1.0, optimizers=[0], learning_rates=[[value]], update_to_weight=update)
        for step, value in enumerate(values)
    ]
    last = DeepObservation(step=len(values) - 2)
    observed = RunObservation(
        steps=steps,
        deep_steps=[last],
        optimizers=[OptimizerObservation(name, [group], len(values))],
        schedulers=list(schedulers),
        outcome=Outcome.COMPLETED,
    )
    for key, value in changes.items():
        setattr(observed, key, value)
    return observed


def scheduler(name: str = "LambdaLR", num_steps: int = 40, **changes: Any) -> SchedulerObservation:
    found = {"optimizer": 0, "last_epoch": num_steps, "last_seen_step": 38, **changes}
    return SchedulerObservation(name, num_steps, **found)


def find(make_run: MakeRun, observed: RunObservation) -> list[Finding]:
    return list(diagnose(make_run(observed=observed), RULES).findings)


def codes(make_run: MakeRun, observed: RunObservation) -> list[str]:
    return [finding.code for finding in find(make_run, observed)]


def test_a_rate_of_zero_in_every_step_is_an_error(make_run: MakeRun) -> None:
    (finding,) = find(make_run, observe([0.0] * 20, update=0.0))
    assert (finding.code, finding.severity) == ("T601", Severity.ERROR)
    assert "SGD is 0 in all 20 steps" in finding.message


def test_a_rate_of_zero_may_be_the_start_of_a_warm_up_in_a_run_cut_short(make_run: MakeRun) -> None:
    waiting = observe([0.0] * 20, scheduler(num_steps=0), update=0.0, outcome=Outcome.STOPPED)
    (finding,) = find(make_run, waiting)
    assert (finding.code, finding.severity) == ("T601", Severity.WARNING)
    assert codes(make_run, observe([0.0, 0.0])) == []


def test_a_group_of_rate_zero_beside_others_is_frozen_on_purpose(make_run: MakeRun) -> None:
    observed = observe([0.1] * 20)
    for step in observed.steps:
        step.learning_rates = [[0.0, 0.1]]
    assert codes(make_run, observed) == []


def test_a_tiny_rate_that_moves_nothing_is_told_with_both_numbers(make_run: MakeRun) -> None:
    (finding,) = find(make_run, observe([3e-8] * 20, name="AdamW", update=3e-7))
    assert finding.code == "T602"
    assert "3e-08" in finding.message
    assert "3e-07" in finding.message


@pytest.mark.parametrize(
    ("values", "changes"),
    [
        ([5e-7] * 20, {"name": "AdamW", "update": 3e-6}),
        ([1e-7] * 20, {"update": 1e-3}),
        ([1e-9 * step for step in range(1, 21)], {"name": "AdamW", "update": 1e-9}),
        ([1e-8] * 20, {"name": "DAdaptAdam", "update": 1e-8}),
    ],
    ids=["preference tuning", "a loss that is a sum", "warm-up", "a rate of its own"],
)
def test_a_low_rate_on_purpose_is_not_told(
    make_run: MakeRun, values: list[float], changes: dict[str, Any]
) -> None:
    assert codes(make_run, observe(values, **changes)) == []


def test_a_rate_for_sgd_given_to_adam_is_told(make_run: MakeRun) -> None:
    (finding,) = find(make_run, observe([0.3] * 20, name="AdamW", update=0.6))
    assert (finding.code, finding.severity) == ("T603", Severity.WARNING)
    (finding,) = find(make_run, observe([0.3] * 20, name="Adam", update=0.05))
    assert finding.severity is Severity.NOTE
    (finding,) = find(make_run, observe([3.0] * 20, update=2.0))
    assert finding.code == "T603"


def test_high_rates_that_are_right_and_searches_are_not_told(make_run: MakeRun) -> None:
    search = [1e-6 * 10 ** (step / 4) for step in range(40)]
    assert codes(make_run, observe([20.0] * 20, update=0.01)) == []
    assert (
        codes(make_run, observe(search, scheduler("ExponentialLR"), name="AdamW", base=1e-6, update=1.0))
        == []
    )
    assert codes(make_run, observe([1.0] * 20, name="Prodigy", update=0.5)) == []


def test_a_rate_that_jumps_is_told_and_a_warm_up_to_its_base_is_not(make_run: MakeRun) -> None:
    (finding,) = find(make_run, observe([0.001] * 10 + [0.1] * 10))
    assert (finding.code, finding.step) == ("T604", 10)
    assert codes(make_run, observe([1e-5] * 5 + [0.1] * 15, base=0.1)) == []


def test_a_warm_up_that_outlasts_the_run_is_told(make_run: MakeRun) -> None:
    warm_up = [0.1 * step / 10_000 for step in range(1, 41)]
    (finding,) = find(make_run, observe(warm_up, scheduler(), base=0.1))
    assert (finding.code, finding.severity) == ("T605", Severity.WARNING)
    assert "0.40% of its base 0.1" in finding.message
    short = [0.1 * step / 200 for step in range(1, 41)]
    (finding,) = find(make_run, observe(short, scheduler(), base=0.1))
    assert finding.severity is Severity.NOTE


def test_a_warm_up_that_is_only_cut_off_is_not_told(make_run: MakeRun) -> None:
    warm_up = [0.1 * step / 10_000 for step in range(1, 41)]
    assert codes(make_run, observe(warm_up, scheduler(), base=0.1, outcome=Outcome.STOPPED)) == []
    assert codes(make_run, observe([*warm_up[:-1], 0.1], scheduler(), base=0.1)) == []


def test_a_cosine_stepped_past_its_end_is_told(make_run: MakeRun) -> None:
    swing = [0.05 * (1 + math.cos(math.pi * step / 10)) for step in range(40)]
    cosine = scheduler("CosineAnnealingLR", hyperparameters={"T_max": 10})
    (finding,) = find(make_run, observe(swing, cosine, base=0.1))
    assert (finding.code, finding.step) == ("T606", 10)
    assert "stepped 40 times with T_max 10" in finding.message
    (finding,) = find(make_run, observe(swing, scheduler("LambdaLR"), base=0.1))
    assert "mirrors the way down" in finding.message


@pytest.mark.parametrize("name", ["CosineAnnealingWarmRestarts", "CyclicLR", "OneCycleLR"])
def test_schedules_that_come_back_on_purpose_are_not_told(make_run: MakeRun, name: str) -> None:
    swing = [0.05 * (1 + math.cos(math.pi * step / 10)) for step in range(40)]
    assert codes(make_run, observe(swing, scheduler(name), base=0.1)) == []


def test_restarts_and_second_warm_ups_of_a_lambda_are_not_told(make_run: MakeRun) -> None:
    restarts = COSINE[::4] * 4
    again = [*COSINE[::2], *(0.1 * step / 5 for step in range(1, 6)), *COSINE[::3]]
    assert codes(make_run, observe(restarts, scheduler(), base=0.1)) == []
    assert codes(make_run, observe(again, scheduler(), base=0.1)) == []


def test_a_rate_that_fades_to_nothing_is_told(make_run: MakeRun) -> None:
    (finding,) = find(make_run, observe([0.1 * 0.1**step for step in range(40)], scheduler("ExponentialLR")))
    assert finding.code == "T607"
    assert "for 35 of 40 steps" in finding.message


def test_usual_decays_are_clean(make_run: MakeRun) -> None:
    plateau = [0.1] * 10 + [1e-7] * 30
    assert codes(make_run, observe(COSINE, scheduler(), base=0.1)) == []
    assert codes(make_run, observe([0.1] * 20 + [0.01] * 10 + [0.001] * 10, scheduler("StepLR"))) == []
    assert codes(make_run, observe(plateau, scheduler("ReduceLROnPlateau"))) == []


def test_a_schedule_stepped_per_micro_batch_is_told_with_their_number(make_run: MakeRun) -> None:
    observed = observe(COSINE, scheduler(num_steps=80, num_idle=40))
    for step in observed.steps:
        step.num_micro_batches = 2
    (finding,) = find(make_run, observed)
    assert finding.code == "T608"
    assert "once per micro-batch, of which a step has 2" in finding.message


def test_a_schedule_counted_in_micro_batches_on_purpose_is_a_note(make_run: MakeRun) -> None:
    planned = scheduler("CosineAnnealingLR", num_steps=80, num_idle=40, hyperparameters={"T_max": 80})
    (finding,) = find(make_run, observe(COSINE, planned))
    assert finding.severity is Severity.NOTE


def test_steps_for_all_ranks_in_environments_and_once_per_epoch_are_clean(make_run: MakeRun) -> None:
    assert codes(make_run, observe(COSINE, scheduler(num_steps=80, num_idle=40), world_size=2)) == []
    assert (
        codes(make_run, observe(COSINE, scheduler(num_steps=80, num_idle=40), environments=["gymnasium"]))
        == []
    )
    assert codes(make_run, observe([0.1] * 40, scheduler("StepLR", num_steps=4, num_idle=1))) == []


def make_loader(*, is_complete: bool) -> LoaderObservation:
    epoch = EpochObservation(0, num_batches=40 if is_complete else 30, is_complete=is_complete)
    return LoaderObservation("Data", 320, 8, 0, "RandomSampler", drop_last=False, epochs=[epoch])


def test_a_schedule_that_is_never_stepped_is_told(make_run: MakeRun) -> None:
    observed = observe([0.1] * 40, scheduler("StepLR", num_steps=0), loaders=[make_loader(is_complete=True)])
    (finding,) = find(make_run, observed)
    assert (finding.code, finding.subject) == ("T609", "StepLR")


def test_a_one_cycle_that_was_thrown_away_is_told(make_run: MakeRun) -> None:
    lost = scheduler("OneCycleLR", num_steps=0, optimizer=None, hyperparameters={"base_lrs": [0.004]})
    assert codes(make_run, observe([0.004] * 40, lost)) == ["T609"]
    assert codes(make_run, observe([0.1] * 40, lost)) == []


@pytest.mark.parametrize(
    "observed",
    [
        observe([0.1] * 40, scheduler(num_steps=0), loaders=[make_loader(is_complete=False)]),
        observe([0.1] * 40, scheduler(num_steps=0), outcome=Outcome.STOPPED),
        observe([0.1] * 40, scheduler("SWALR", num_steps=0)),
        observe(COSINE, scheduler("LinearLR", num_steps=0), scheduler()),
        observe([0.1] * 40, scheduler(num_steps=0, is_part=True)),
        observe([0.1] * 40, scheduler(num_steps=0, last_seen_step=1)),
        observe([0.1] * 40, scheduler(num_steps=0, optimizer=None)),
    ],
    ids=[
        "epoch not over",
        "ended from outside",
        "late",
        "another phase",
        "a part",
        "gone",
        "another optimizer",
    ],
)
def test_schedules_with_no_occasion_to_step_are_not_told(make_run: MakeRun, observed: RunObservation) -> None:
    assert codes(make_run, observed) == []


def test_a_schedule_that_steps_first_is_told_and_a_replay_is_a_note(make_run: MakeRun) -> None:
    (finding,) = find(make_run, observe(COSINE, scheduler(num_before_first_optimizer_step=1)))
    assert (finding.code, finding.severity) == ("T610", Severity.WARNING)
    (finding,) = find(
        make_run, observe(COSINE, scheduler(num_steps=140, num_before_first_optimizer_step=100))
    )
    assert finding.severity is Severity.NOTE


def test_a_schedule_of_an_idle_optimizer_is_told(make_run: MakeRun) -> None:
    changes: dict[str, Any] = {"hyperparameters": {"base_lrs": [0.1]}, "last_rates": [0.01]}
    (finding,) = find(make_run, observe([0.1] * 40, scheduler(optimizer=None, num_foreign=40, **changes)))
    assert finding.code == "T611"
    assert "it has set 0.01" in finding.message
    # Where the rate moves all the same, somebody else moves it.
    assert codes(make_run, observe(COSINE, scheduler(optimizer=None, num_foreign=40, **changes))) == []


def test_a_schedule_whose_optimizer_was_replaced_is_told(make_run: MakeRun) -> None:
    observed = observe([0.1] * 40, scheduler(num_steps=10, num_foreign=8))
    observed.optimizers.append(OptimizerObservation("SGD", observed.optimizers[0].groups, 30))
    (finding,) = find(make_run, observed)
    assert finding.code == "T611"
    assert "another one took its place" in finding.message


def test_a_schedule_far_from_its_end_is_a_note(make_run: MakeRun) -> None:
    cosine = scheduler("CosineAnnealingLR", num_steps=5, last_epoch=5, hyperparameters={"T_max": 1000})
    (finding,) = find(make_run, observe([0.1] * 40, cosine))
    assert (finding.code, finding.severity) == ("T612", Severity.NOTE)
    by_epoch = scheduler("CosineAnnealingLR", num_steps=5, last_epoch=5, hyperparameters={"T_max": 40})
    assert [finding.severity for finding in find(make_run, observe([0.1] * 40, by_epoch))] == [
        Severity.WARNING
    ]
    done = scheduler("CosineAnnealingLR", hyperparameters={"T_max": 40})
    assert codes(make_run, observe(COSINE, done, base=0.1)) == []


def test_what_no_watcher_saw_is_not_judged(make_run: MakeRun) -> None:
    diagnosis = diagnose(make_run(), RULES)
    assert diagnosis.applied == ()
    assert set(diagnosis.not_applied.values()) == {"nothing was watched"}


def test_bounds_of_these_rules_have_names_of_their_own() -> None:
    for rule in RULES:
        names = [bound.name for bound in rule.bounds]
        assert all(first != second for first, second in itertools.combinations(names, 2))
