from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from harness.record.loader_observation import EpochObservation, LoaderObservation
from harness.record.observation import RunObservation
from harness.record.step_observation import StepObservation
from harness.rules.data_coverage import SAMPLES_REPEATED
from harness.rules.stepping import NEVER_STEPS

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.record.run import TrainingRun

    MakeRun = Callable[..., TrainingRun]


def test_backwards_without_any_update_are_told_with_their_numbers(make_run: MakeRun) -> None:
    run = make_run(observed=RunObservation(num_backwards=40, num_compared_gradients=39))
    (finding,) = NEVER_STEPS.apply(run)
    assert "40 backward passes were made and no optimizer stepped" in finding.message
    assert NEVER_STEPS.apply(run, bounds={"min_backwards": 50}) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": [StepObservation(0)]},
        {"num_updates_by_hand": 3},
        {"num_compared_gradients": 2},
    ],
)
def test_any_sign_of_an_update_is_silence(make_run: MakeRun, changes: dict[str, Any]) -> None:
    whole: dict[str, Any] = {"num_backwards": 40, "num_compared_gradients": 39} | changes
    assert NEVER_STEPS.apply(make_run(observed=RunObservation(**whole))) == []


def test_what_could_not_be_compared_is_not_judged(make_run: MakeRun) -> None:
    assert NEVER_STEPS.find_obstacle(make_run()) == "nothing was watched"
    blind = make_run(observed=RunObservation(num_backwards=40))
    assert NEVER_STEPS.find_obstacle(blind) == "no parameters could be compared between backwards"


def make_loader(num_different: int, *, drawn: int = 400, looked_at: int = 400) -> LoaderObservation:
    return LoaderObservation(
        "Points",
        400,
        8,
        0,
        "RandomSampler",
        drop_last=False,
        epochs=[EpochObservation(0, num_batches=8, num_distinct=drawn)],
        num_training_batches=8,
        num_looked_at=looked_at,
        num_different=num_different,
    )


@pytest.mark.parametrize(
    ("loader", "is_told"),
    [
        (make_loader(8), True),
        (make_loader(20), True),
        (make_loader(21), False),
        (make_loader(1, drawn=8), False),
        (make_loader(0, looked_at=0), False),
    ],
)
def test_equal_contents_for_different_indices(
    make_run: MakeRun, loader: LoaderObservation, is_told: bool
) -> None:
    run = make_run(observed=RunObservation(loaders=[loader]))
    assert bool(SAMPLES_REPEATED.apply(run)) is is_told
