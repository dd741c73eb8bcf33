"""One small training with dropout and batch norm, and faults of its modes and of its evaluation."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn
from torch.nn import functional

from harness.record.observation import RunObservation
from harness.record.watched import build_watched_steps
from harness.rules import evaluation, modes
from harness.rules.diagnosis import diagnose
from harness.watch.observer import Observer
from harness.watch.options import ObserverOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.record.run import TrainingRun

    MakeRun = Callable[..., TrainingRun]

RULES = (*modes.RULES, *evaluation.RULES)
OPTIONS = ObserverOptions(deep_steps=(0, 1, 10, 20))


class Net(nn.Module):
    def __init__(self, momentum: float, *, drops_always: bool) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(6, 16), nn.BatchNorm1d(16, momentum=momentum)
        self.dropout, self.head = nn.Dropout(0.2), nn.Linear(16, 3)
        self.drops_always = drops_always

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        features = torch.relu(self.norm(self.first(inputs)))
        dropped = functional.dropout(features, 0.2) if self.drops_always else self.dropout(features)
        logits: torch.Tensor = self.head(dropped)
        return logits


@dataclass(frozen=True)
class Program:
    """What the training does; each flag is a fault, or something that looks like one."""

    trains_again: bool = True
    ever_trains: bool = True
    evaluates_in_eval: bool = True
    has_no_grad: bool = True
    evaluates_copy: bool = False
    momentum: float = 0.1
    drops_always: bool = False
    freezes_norm: bool = False
    attacks_in_eval: bool = False
    caches_in_training: bool = False

    def run(self) -> None:
        """Twenty-four steps with an evaluation after every eighth."""
        torch.manual_seed(0)
        model = Net(self.momentum, drops_always=self.drops_always)
        shown = copy.deepcopy(model) if self.evaluates_copy else model
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        batches = [(torch.randn(8, 6), torch.randint(3, (8,))) for _ in range(24)]
        model.train(self.ever_trains)
        for step, (inputs, targets) in enumerate(batches, 1):
            if self.freezes_norm:
                model.norm.eval()
            optimizer.zero_grad()
            if self.attacks_in_eval:
                model.eval()
                functional.cross_entropy(model(inputs), targets).backward()
                model.train()
                optimizer.zero_grad()
            if self.caches_in_training:
                with torch.no_grad():
                    model(inputs)
            functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
            if step % 8 == 0:
                self.evaluate(shown, batches)
                model.train(self.trains_again and self.ever_trains)

    def evaluate(self, model: nn.Module, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Calls the model with a few batches."""
        model.train(not self.evaluates_in_eval)
        with torch.set_grad_enabled(not self.has_no_grad):
            for inputs, targets in batches[:2]:
                functional.cross_entropy(model(inputs), targets).item()


def judge(make_run: MakeRun, program: Program) -> list[str]:
    with Observer(OPTIONS) as observer:
        program.run()
    observed = RunObservation.from_json(json.loads(json.dumps(observer.observation.to_json())))
    assert observed.not_seen == []
    run = make_run(steps=build_watched_steps(observed), observed=observed, source="watched optimizer steps")
    return [f"{finding.code} {finding.severity}" for finding in diagnose(run, RULES).findings]


@pytest.mark.parametrize(
    "program",
    [
        Program(),
        Program(freezes_norm=True),
        Program(attacks_in_eval=True),
        Program(caches_in_training=True),
    ],
    ids=[
        "plain",
        "frozen batch norm",
        "adversarial examples in eval mode",
        "features cached in training mode",
    ],
)
def test_right_modes_are_clean(make_run: MakeRun, program: Program) -> None:
    assert judge(make_run, program) == []


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (Program(trains_again=False), "T701 error"),
        (Program(ever_trains=False), "T702 warning"),
        (Program(evaluates_in_eval=False), "T703 warning"),
        (Program(has_no_grad=False), "T704 warning"),
        (Program(evaluates_copy=True), "T705 warning"),
        (Program(momentum=0.0), "T706 warning"),
        (Program(drops_always=True), "T707 warning"),
    ],
)
def test_a_fault_of_modes_is_named_and_nothing_else(
    make_run: MakeRun, program: Program, expected: str
) -> None:
    assert judge(make_run, program) == [expected]
