"""Trainings in stages, as pretrained and then fine-tuned, changed in one line: the phase and step that are blamed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.nn.utils import clip_grad_norm_

from harness.baselines.comparison import Match, compare_trajectories
from harness.baselines.trajectory import Phase
from tests.integration.recorded import record

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.baselines.comparison import Divergence
    from harness.baselines.trajectory import Trajectory

    Program = Callable[["Config"], None]
    Diverge = Callable[["Config", Program], Divergence]

FIRST, WHOLE = 12, 20
"""Steps of the first stage, and of both."""
LATE = 9
"""A step of the first stage that is not among its first ones."""


@dataclass(frozen=True)
class Config:
    """Every line that a test changes."""

    kind: type[nn.Module] = nn.ReLU
    is_loaded: bool = True
    zeroed_at: int = -1
    reset_at: int = -1
    extra_draw_at: int = -1
    batch_size: int = 16
    num_samples: int = 64
    repeated_at: int = -1
    scale: float = 1.0
    frozen_at: int = -1
    max_norm: float = 0.05


class Training:
    """A loop whose stages have an optimizer each."""

    def __init__(self, config: Config) -> None:
        self.config = config
        torch.manual_seed(0)
        self.inputs = torch.randn(64, 8)
        self.targets = self.inputs.sum(1, keepdim=True).tanh()
        self.first: torch.Tensor | None = None

    def build(self) -> nn.Sequential:
        return nn.Sequential(nn.Linear(8, 16), self.config.kind(), nn.Linear(16, 1))

    def fit(self, model: nn.Sequential, optimizer: torch.optim.Optimizer, start: int, end: int) -> None:
        config = self.config
        for step in range(start, end):
            self.tamper(model, step)
            rows = torch.randint(0, config.num_samples, (config.batch_size,))
            if self.first is None:
                self.first = rows
            rows = self.first if step == config.repeated_at else rows
            loss = mse_loss(model(self.inputs[rows]), self.targets[rows])
            optimizer.zero_grad()
            loss.backward()
            clip_grad_norm_(model.parameters(), config.max_norm)
            optimizer.step()

    def tamper(self, model: nn.Sequential, step: int) -> None:
        config, last = self.config, model[2]
        assert isinstance(last, nn.Linear)
        if step == 0 and config.scale != 1.0:
            last.bias.register_hook(lambda gradient: gradient * config.scale)
        if step == config.zeroed_at:
            last.bias.data.zero_()
        if step == config.reset_at:
            last.reset_parameters()
        if step == config.extra_draw_at:
            torch.rand(1)
        if step == config.frozen_at:
            last.bias.requires_grad_(False)


def train_rebuilt(config: Config) -> None:
    """The same model under a new optimizer, which takes over the state of the old one."""
    training = Training(config)
    model = training.build()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    training.fit(model, optimizer, 0, FIRST)
    state = optimizer.state_dict()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    optimizer.load_state_dict(state)
    training.fit(model, optimizer, FIRST, WHOLE)


def train_loaded(config: Config) -> None:
    """Another model, which starts from what the first one came to."""
    training = Training(config)
    model, other = training.build(), training.build()
    training.fit(model, torch.optim.Adam(model.parameters(), lr=1e-2), 0, FIRST)
    if config.is_loaded:
        other.load_state_dict(model.state_dict())
    training.fit(other, torch.optim.Adam(other.parameters(), lr=1e-3), FIRST, WHOLE)


@pytest.fixture(scope="module")
def baselines(tmp_path_factory: pytest.TempPathFactory) -> dict[Program, Trajectory]:
    folder = tmp_path_factory.mktemp("run")
    return {program: record(folder, Config(), program) for program in (train_rebuilt, train_loaded)}


@pytest.fixture
def diverge(baselines: dict[Program, Trajectory], tmp_path: Path) -> Diverge:
    def compare(config: Config, program: Program) -> Divergence:
        found = compare_trajectories(baselines[program], record(tmp_path, config, program)).divergence
        assert found is not None
        return found

    return compare


both = pytest.mark.parametrize("program", [train_rebuilt, train_loaded])


@both
def test_unchanged_stages_match(
    program: Program,
    baselines: dict[Program, Trajectory],
    tmp_path: Path,
) -> None:
    found = compare_trajectories(baselines[program], record(tmp_path, Config(), program))
    assert (found.match, found.is_exact) == (Match.MATCHES, True)


CHANGES = {
    "another activation": (Config(kind=nn.GELU), Phase.FORWARD, 0),
    "a bias set to zero": (Config(zeroed_at=LATE), Phase.INITIALISATION, LATE),
    "a layer reset": (Config(reset_at=LATE), Phase.INITIALISATION, LATE),
    "an extra draw": (Config(extra_draw_at=LATE), Phase.RNG, LATE),
    "a batch again": (Config(repeated_at=LATE), Phase.DATA, LATE),
    "a smaller batch": (Config(batch_size=12), Phase.DATA, 0),
    "a gradient scaled": (Config(scale=2.0), Phase.GRADIENTS, 0),
    "a bias frozen": (Config(frozen_at=LATE), Phase.GRADIENTS, LATE),
}


@both
@pytest.mark.parametrize("name", CHANGES)
def test_what_the_second_stage_starts_from_is_a_consequence(
    name: str, program: Program, diverge: Diverge
) -> None:
    config, phase, step = CHANGES[name]
    found = diverge(config, program)
    assert (found.phase, found.step) == (phase, step), found


def test_a_second_stage_that_starts_from_other_values_begins_there(diverge: Diverge) -> None:
    found = diverge(Config(is_loaded=False), train_loaded)
    assert (found.phase, found.step) == (Phase.INITIALISATION, FIRST), found


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (Config(batch_size=12), "batch 0 has another shape, 12x8 in place of 16x8: "),
        (Config(repeated_at=LATE), f"batch {LATE} is that of step 0 again: "),
        # No loader tells which samples they are.
        (Config(num_samples=63), "batch 0 holds other samples, or other contents of the same: "),
        (Config(frozen_at=LATE), "`2.bias` gets no gradient from this step on: "),
        (Config(reset_at=LATE), "some tensors differ after the same updates: "),
    ],
    ids=["size", "repeated", "samples", "frozen", "reset"],
)
def test_the_cause_is_told_as_far_as_it_is_known(config: Config, told: str, diverge: Diverge) -> None:
    assert diverge(config, train_rebuilt).causes[0].startswith(told)


@pytest.mark.parametrize("config", [Config(scale=2.0), Config(frozen_at=LATE), Config(frozen_at=0)])
def test_of_gradients_that_clipping_scales_the_one_is_named_that_differs_before_it(
    config: Config, diverge: Diverge
) -> None:
    assert diverge(config, train_rebuilt).item == "gradient of `2.bias`"
