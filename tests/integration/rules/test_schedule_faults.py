"""One small training, and faults of the schedule of its learning rate."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

from harness.record.observation import RunObservation
from harness.record.watched import build_watched_steps
from harness.rules import rate_course, rates, schedule
from harness.rules.diagnosis import diagnose
from harness.watch.observer import Observer

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.record.run import TrainingRun

    MakeRun = Callable[..., TrainingRun]
    MakeSchedule = Callable[[torch.optim.Optimizer], Any]

NUM_BATCHES = 6
NUM_EPOCHS = 4
NUM_STEPS = NUM_BATCHES * NUM_EPOCHS
RULES = (*rates.RULES, *schedule.RULES, *rate_course.RULES)


def train(
    make_schedule: MakeSchedule,
    *,
    when: str = "step",
    lr: float = 0.1,
    kind: type[torch.optim.Optimizer] = torch.optim.SGD,
    is_rebuilt: bool = False,
) -> None:
    """Four epochs of two micro-batches a step; the schedule advances as `when` says."""
    torch.manual_seed(0)
    labels = torch.randint(3, (NUM_BATCHES * 8,))
    points = torch.randn(3, 5)[labels] + 0.3 * torch.randn(len(labels), 5)
    loader = DataLoader(TensorDataset(points, labels), batch_size=8, shuffle=True)
    model = nn.Linear(5, 3)
    optimizer = kind(model.parameters(), lr=lr)  # type: ignore[call-arg]
    schedule = make_schedule(optimizer)
    if is_rebuilt:
        optimizer = kind(model.parameters(), lr=lr)  # type: ignore[call-arg]
    for _ in range(NUM_EPOCHS):
        if when == "epoch's start":
            schedule.step()
        for batch, target in loader:
            optimizer.zero_grad()
            for part, wanted in ((batch[:4], target[:4]), (batch[4:], target[4:])):
                (cross_entropy(model(part), wanted) / 2).backward()
                if when == "micro-batch":
                    schedule.step()
            optimizer.step()
            if when == "step":
                schedule.step()
        if when == "epoch":
            schedule.step()


def judge(make_run: MakeRun, program: Callable[[], None]) -> list[str]:
    with Observer() as observer:
        program()
    observed = RunObservation.from_json(json.loads(json.dumps(observer.observation.to_json())))
    assert observed.not_seen == []
    run = make_run(steps=build_watched_steps(observed), observed=observed, source="watched optimizer steps")
    return [f"{finding.code} {finding.severity}" for finding in diagnose(run, RULES).findings]


def cosine(optimizer: torch.optim.Optimizer, length: int = NUM_STEPS) -> Any:
    return lr_scheduler.CosineAnnealingLR(optimizer, T_max=length)


def constant(optimizer: torch.optim.Optimizer) -> Any:
    return lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)


def warm_up(optimizer: torch.optim.Optimizer, length: int) -> Any:
    return lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / length))


CLEAN: dict[str, dict[str, Any]] = {
    "cosine by step": {"make_schedule": cosine},
    "cosine by epoch": {"make_schedule": lambda o: cosine(o, NUM_EPOCHS), "when": "epoch"},
    "warm-up then cosine": {
        "make_schedule": lambda o: lr_scheduler.SequentialLR(
            o, [lr_scheduler.LinearLR(o, 0.1, total_iters=4), cosine(o, NUM_STEPS - 4)], milestones=[4]
        )
    },
    "one cycle": {"make_schedule": lambda o: lr_scheduler.OneCycleLR(o, 0.2, total_steps=NUM_STEPS + 1)},
    "warm restarts": {"make_schedule": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=8)},
    "cyclic": {"make_schedule": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=4)},
    "search": {
        "make_schedule": lambda o: lr_scheduler.ExponentialLR(o, gamma=1.8),
        "lr": 1e-6,
        "kind": torch.optim.Adam,
    },
    "constant": {"make_schedule": constant},
}

FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "rate 0": (
        {"make_schedule": lambda o: lr_scheduler.LambdaLR(o, lambda step: step // 1000)},
        "T601 error",
    ),
    "rate tiny": ({"make_schedule": constant, "lr": 1e-9}, "T602 warning"),
    "rate wild": ({"make_schedule": constant, "lr": 1.0, "kind": torch.optim.Adam}, "T603 warning"),
    "warm-up never ends": ({"make_schedule": lambda o: warm_up(o, 10_000)}, "T605 warning"),
    "swings back": ({"make_schedule": lambda o: cosine(o, 8)}, "T606 warning"),
    "fades": ({"make_schedule": lambda o: lr_scheduler.ExponentialLR(o, gamma=0.1)}, "T607 warning"),
    "per micro-batch": ({"make_schedule": cosine, "when": "micro-batch"}, "T608 warning"),
    "never stepped": ({"make_schedule": cosine, "when": "never"}, "T609 warning"),
    "steps first": (
        {"make_schedule": lambda o: cosine(o, NUM_EPOCHS), "when": "epoch's start"},
        "T610 warning",
    ),
    "another optimizer": ({"make_schedule": cosine, "is_rebuilt": True}, "T611 warning"),
}


@pytest.mark.parametrize("name", CLEAN)
def test_a_right_schedule_is_clean(make_run: MakeRun, name: str) -> None:
    assert judge(make_run, lambda: train(**CLEAN[name])) == []


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step", "ignore:The epoch parameter")
def test_a_fault_of_the_schedule_is_named_first(make_run: MakeRun, name: str) -> None:
    options, expected = FAULTS[name]
    found = judge(make_run, lambda: train(**options))
    assert found[:1] == [expected]
