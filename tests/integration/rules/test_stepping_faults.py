"""A program that never steps, layers of equal units, and data sets that repeat themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from harness.record.run import Step
from harness.record.watched import build_watched_steps
from harness.rules.diagnosis import diagnose
from harness.watch.observer import Observer

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.record.run import TrainingRun

    MakeRun = Callable[..., TrainingRun]

CODES = ("T409", "T510", "T809")
NUM_SAMPLES = 96


class Points(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Points whose sign is to be told; `period` makes them repeat themselves."""

    def __init__(self, period: int = NUM_SAMPLES) -> None:
        self.points = torch.randn(NUM_SAMPLES, 8, generator=torch.Generator().manual_seed(0))
        self.period = period

    def __len__(self) -> int:
        return NUM_SAMPLES

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        point = self.points[index % self.period]
        return point, (point[0] > 0).long()


def train(
    *,
    update: str = "optimizer",
    period: int = NUM_SAMPLES,
    initialise: Callable[[torch.Tensor], Any] | None = None,
) -> list[float]:
    torch.manual_seed(0)
    first = nn.Linear(8, 16)
    model = nn.Sequential(first, nn.Tanh(), nn.Linear(16, 2))
    if initialise is not None:
        initialise(first.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for points, labels in DataLoader(Points(period), batch_size=8, shuffle=True):
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(points), labels)
        loss.backward()
        if update == "optimizer":
            optimizer.step()
        elif update == "by hand":
            with torch.no_grad():
                for parameter in model.parameters():
                    assert parameter.grad is not None
                    parameter.sub_(0.1 * parameter.grad)
        losses.append(loss.item())
    return losses


def judge(make_run: MakeRun, **faults: Any) -> list[tuple[str, str]]:
    with Observer() as observer:
        losses = train(**faults)
    observed = observer.observation
    steps = build_watched_steps(observed) or [Step(step, {"loss": loss}) for step, loss in enumerate(losses)]
    found = diagnose(make_run(steps=steps, observed=observed)).findings
    return [(finding.code, finding.severity) for finding in found if finding.code in CODES]


def test_a_training_as_it_should_be_is_silent(make_run: MakeRun) -> None:
    assert judge(make_run) == []


def test_an_optimizer_that_never_steps_is_an_error(make_run: MakeRun) -> None:
    assert judge(make_run, update="none") == [("T510", "error")]


def test_updates_by_hand_are_none(make_run: MakeRun) -> None:
    assert judge(make_run, update="by hand") == []


def test_units_that_are_all_alike_are_told(make_run: MakeRun) -> None:
    assert judge(make_run, initialise=lambda weight: nn.init.constant_(weight, 0.1)) == [("T409", "warning")]


@pytest.mark.parametrize("initialise", [nn.init.zeros_, nn.init.orthogonal_])
def test_zeros_and_other_ways_to_begin_are_silent(
    make_run: MakeRun, initialise: Callable[[torch.Tensor], Any]
) -> None:
    assert judge(make_run, initialise=initialise) == []


def test_a_data_set_that_repeats_a_few_samples_is_told(make_run: MakeRun) -> None:
    assert judge(make_run, period=4) == [("T809", "warning")]


def test_a_data_set_that_repeats_some_is_not(make_run: MakeRun) -> None:
    assert judge(make_run, period=48) == []
