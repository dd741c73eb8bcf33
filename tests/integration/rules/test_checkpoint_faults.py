"""Faults of checkpoints, each in a tiny training that is watched in process, beside the training without it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from harness.rules.diagnosis import diagnose
from harness.rules.finding import Severity
from harness.watch.call import run_call
from harness.watch.launch import RunOptions
from harness.watch.options import ObserverOptions
from harness.watch.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.rules.finding import Finding

    Save = Callable[["Training"], object]

NUM_STEPS = 12


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU())
        self.head = nn.Linear(32, 8)

    def forward(self, inputs: torch.Tensor) -> Any:
        return self.head(self.body(inputs))


class Training:
    """A loop with everything that has a state; saves after every sixth step."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = Net()
        self.first = copy.deepcopy(self.model.state_dict())
        self.average = copy.deepcopy(self.model).requires_grad_(requires_grad=False)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01)
        self.schedule = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, 0.99)
        self.step = 0

    def state(self, **changes: Any) -> dict[str, Any]:
        whole = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.schedule.state_dict(),
            "step": self.step,
        } | changes
        return {name: part for name, part in whole.items() if part is not None}

    def save(self, name: str = "last.pt", **changes: Any) -> None:
        torch.save(self.state(**changes), self.folder / name)

    def run(self, save: Save, *, at_start: bool = False) -> None:
        if at_start:
            save(self)
        for self.step in range(1, NUM_STEPS + 1):
            self.optimizer.zero_grad()
            inputs = torch.randn(16, 8)
            cross_entropy(self.model(inputs), inputs.argmax(1)).backward()
            self.optimizer.step()
            self.schedule.step()
            for slow, fast in zip(self.average.parameters(), self.model.parameters(), strict=True):
                slow.lerp_(fast.detach(), 0.1)
            if self.step % 6 == 0 and not at_start:
                with torch.no_grad():
                    self.average(inputs)
                save(self)


def find(folder: Path, save: Save, *, at_start: bool = False) -> dict[str, Finding]:
    options = RunOptions(
        name="train", run_dir=folder, seed=0, threads=1, watch=ObserverOptions(deep_steps=(0, 1, 4))
    )
    run = run_call(
        lambda: Training(folder).run(save, at_start=at_start), options=options, recorder=Recorder()
    )
    assert run.observed is not None
    assert not [text for text in run.observed.not_seen if "itself failed" in text]
    return {finding.code: finding for finding in diagnose(run).findings if finding.code.startswith("A1")}


def cut_off(training: Training) -> None:
    training.save()
    path = training.folder / "last.pt"
    path.write_bytes(path.read_bytes()[:2000])


def save_without_head(training: Training) -> None:
    training.save(
        model={key: value for key, value in training.model.state_dict().items() if "head" not in key}
    )


def save_parameters_only(training: Training) -> None:
    training.save(
        model=dict(training.model.named_parameters()), average=dict(training.average.named_parameters())
    )


def save_first(training: Training) -> None:
    torch.save(training.first, training.folder / "model.pt")


def save_not_finite(training: Training) -> None:
    broken = copy.deepcopy(training.model.state_dict())
    broken["head.bias"][0] = torch.nan
    training.save(model=broken, average=None)


@pytest.mark.parametrize(
    ("save", "code", "severity", "message"),
    [
        (cut_off, "A101", Severity.ERROR, "can't be read at the end of the run"),
        (
            lambda training: training.save(model={}, average=None),
            "A101",
            Severity.ERROR,
            "`model` in `last.pt`",
        ),
        (save_without_head, "A102", Severity.WARNING, "`head.weight`, `head.bias`"),
        (save_parameters_only, "A102", Severity.WARNING, "`body.1.running_mean`"),
        (save_first, "A103", Severity.ERROR, "as they were before the first step"),
        (
            lambda training: torch.save(Net().state_dict(), training.folder / "net.pt"),
            "A104",
            Severity.WARNING,
            "nothing of its weights",
        ),
        (save_not_finite, "A105", Severity.ERROR, "`head.bias`"),
        (
            lambda training: training.save(scheduler=None),
            "A106",
            Severity.WARNING,
            "the scheduler's position",
        ),
        (lambda training: training.save(optimizer=None), "A106", Severity.WARNING, "the optimizer's state"),
        (
            lambda training: training.save(
                optimizer=torch.optim.AdamW(training.model.parameters()).state_dict()
            ),
            "A106",
            Severity.WARNING,
            "what it holds is empty",
        ),
        (lambda training: training.save(step=0), "A107", Severity.WARNING, "is 0 in all 2 checkpoints"),
        (
            lambda training: torch.save(training.model, training.folder / "net.pt"),
            "A108",
            Severity.NOTE,
            "a whole module, pickled: `Net`",
        ),
        (lambda training: training.save(average=None), "A111", Severity.WARNING, "second copy of `Net`"),
    ],
)
def test_faulty_checkpoints_are_told(
    tmp_path: Path, save: Save, code: str, severity: Severity, message: str
) -> None:
    findings = find(tmp_path, save)
    assert code in findings
    assert findings[code].severity is severity
    assert message in findings[code].message


def test_a_checkpoint_before_training_alone_is_told(tmp_path: Path) -> None:
    findings = find(tmp_path, lambda training: training.save(), at_start=True)
    assert list(findings) == ["A109"]
    assert "before the first of 12 steps" in findings["A109"].message


@pytest.mark.parametrize(
    "save",
    [
        Training.save,
        lambda training: torch.save(training.model.state_dict(), training.folder / "model.pt"),
        lambda training: torch.save(training.average.state_dict(), training.folder / "ema.pt"),
        lambda training: torch.save(training.model.body.state_dict(), training.folder / "features.pt"),
        lambda training: training.save(
            model={f"module.{k}": v for k, v in training.model.state_dict().items()}
        ),
        lambda training: training.save(
            model={key: value.half() for key, value in training.model.state_dict().items()}
        ),
        lambda training: training.save(scheduler=None, s=training.schedule.state_dict()),
    ],
    ids=["everything", "weights", "average", "part", "wrapped", "half", "other keys"],
)
def test_whole_checkpoints_and_exports_are_silent(tmp_path: Path, save: Save) -> None:
    assert find(tmp_path, save) == {}
