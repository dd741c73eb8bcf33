"""Little trainings, changed in one line: the phase that is blamed, end to end."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.nn.utils import clip_grad_norm_
from torch.utils.data import DataLoader, TensorDataset

from harness.baselines.comparison import Match, compare_trajectories
from harness.baselines.trajectory import Phase
from harness.baselines.trajectory_json import read_trajectory, write_trajectory
from tests.integration.recorded import record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.baselines.trajectory import Trajectory


LATE = 5
"""The first step that is not watched in depth and not among the first ones either."""


@dataclass(frozen=True)
class Config:
    """Every line that a test changes."""

    seed: int = 0
    extra_draw_at: str = ""
    mean: float = 0.0
    init_scale: float = 1.0
    width: int = 16
    dropout: float = 0.1
    smoothing: float = 0.0
    weight: float = 1.0
    gradient_scale: float = 1.0
    max_norm: float | None = 0.2
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    warm_up: int = 3
    is_clamped: bool = False
    draws_python: bool = False
    log_draws_at: int = -1
    late_smoothing: float = 0.0
    rate: float = 0.1
    late_scale: float = 1.0
    has_temperature: bool = True
    has_late_eval: bool = False
    has_evaluation: bool = False


class Model(nn.Sequential):
    """A model whose outputs are scaled from a step on."""

    scale = 1.0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Logits."""
        given: torch.Tensor = super().forward(inputs)
        return given if self.scale == 1.0 else given * self.scale


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def train(config: Config) -> None:
    torch.manual_seed(config.seed)
    rows = torch.Generator().manual_seed(7)
    data = TensorDataset(
        torch.randn(48, 8, generator=rows) - config.mean, torch.randint(0, 4, (48,), generator=rows)
    )
    if config.extra_draw_at == "before the model":
        torch.rand(1)
    model = Model(
        nn.Linear(8, config.width), nn.ReLU(), nn.Dropout(config.dropout), nn.Linear(config.width, 4)
    )
    first: Any = model[0]
    with torch.no_grad():
        first.weight.mul_(config.init_scale)
    if config.gradient_scale != 1.0:
        first.weight.register_hook(lambda gradient: gradient * config.gradient_scale)
    if config.extra_draw_at == "after the model":
        torch.rand(1)
    # Of no module, so that nothing names it.
    temperature = nn.Parameter(torch.tensor(1.0))
    held = [*model.parameters(), *([temperature] if config.has_temperature else [])]
    optimizer = torch.optim.AdamW(held, lr=0.01, betas=config.betas, weight_decay=config.weight_decay)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / config.warm_up)
    )
    step = 0
    for _ in range(2):
        for inputs, targets in DataLoader(data, batch_size=8, shuffle=True):
            if config.draws_python:
                random.random()
            if step == config.log_draws_at:
                torch.rand(1)
            smoothing = config.smoothing if step < LATE else config.late_smoothing
            model.scale = 1.0 if step < LATE else config.late_scale
            model.train(not config.has_late_eval or step < LATE)
            with torch.no_grad():  # draws for its dropout before the step's first gradient
                model(inputs)
            loss = config.weight * cross_entropy(
                model(inputs) * temperature, targets, label_smoothing=smoothing
            )
            optimizer.zero_grad()
            loss.backward()
            if config.max_norm is not None:
                clip_grad_norm_(model.parameters(), config.max_norm)
            optimizer.step()
            scheduler.step()
            if config.is_clamped:
                with torch.no_grad():
                    first.weight.clamp_(-0.1, 0.1)
            step += 1
            evaluate(model, data, step if config.has_evaluation else 0)


def evaluate(model: nn.Module, data: TensorDataset, step: int) -> None:
    """An evaluation between two steps that records graphs; the model trains on in training mode."""
    if step == LATE:
        model.eval()
        inputs, _ = data[torch.randperm(len(data))]
        for batch in inputs.split(8):
            model(batch)
        model.train()


def train_by_closure(config: Config) -> None:
    """LBFGS, which calls the model several times in a step, with updates in between."""
    torch.manual_seed(config.seed)
    inputs = torch.randn(64, 8)
    targets = inputs.sum(1, keepdim=True)
    model = Model(nn.Linear(8, config.width), nn.Tanh(), nn.Linear(config.width, 1))
    optimizer = torch.optim.LBFGS(model.parameters(), lr=config.rate, max_iter=4)
    for step in range(LATE + 3):
        model.scale = 1.0 if step < LATE else config.late_scale
        weight = 0.0 if step < LATE else config.late_smoothing

        def compute(weight: float = weight) -> torch.Tensor:
            optimizer.zero_grad()
            given = model(inputs)
            loss: torch.Tensor = mse_loss(given, targets) + weight * given.abs().mean()
            loss.backward()
            return loss

        optimizer.step(compute)


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Trajectory:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    recorded = record(tmp_path_factory.mktemp("run"), Config(), train)
    torch.set_num_threads(before)
    return read_trajectory(json.loads(json.dumps(write_trajectory(recorded), allow_nan=False)))


def test_the_same_training_matches_its_stored_trajectory(baseline: Trajectory, tmp_path: Path) -> None:
    random.seed()
    found = compare_trajectories(baseline, record(tmp_path, Config(), train))
    assert (found.match, found.is_exact, found.notes) == (Match.MATCHES, True, ())


CHANGES: dict[str, tuple[Config, Phase, int]] = {
    "seed": (Config(seed=1), Phase.RNG, 0),
    "extra draw before the model": (Config(extra_draw_at="before the model"), Phase.RNG, 0),
    "extra draw after the model": (Config(extra_draw_at="after the model"), Phase.RNG, 0),
    "extra draw in step 4": (Config(log_draws_at=4), Phase.RNG, 4),
    "normalisation": (Config(mean=0.5), Phase.DATA, 0),
    "initialisation": (Config(init_scale=2.0), Phase.INITIALISATION, 0),
    "wider layer": (Config(width=20), Phase.INITIALISATION, 0),
    "dropout": (Config(dropout=0.2), Phase.FORWARD, 0),
    "label smoothing": (Config(smoothing=0.1, late_smoothing=0.1), Phase.LOSS, 0),
    "weight of the loss": (Config(weight=2.0), Phase.LOSS, 0),
    "gradient of a layer": (Config(gradient_scale=2.0), Phase.GRADIENTS, 0),
    "clipping": (Config(max_norm=0.1), Phase.CLIPPING, 0),
    "no clipping": (Config(max_norm=None), Phase.CLIPPING, 0),
    "betas": (Config(betas=(0.9, 0.9)), Phase.OPTIMIZER, 0),
    "weight decay": (Config(weight_decay=0.1), Phase.OPTIMIZER, 0),
    "clamped weights": (Config(is_clamped=True), Phase.OPTIMIZER, 1),
    "warm-up": (Config(warm_up=4), Phase.SCHEDULE, 0),
    "label smoothing from step 5 on": (Config(late_smoothing=0.1), Phase.LOSS, LATE),
    "a tensor of no module left out of the optimizer": (Config(has_temperature=False), Phase.OPTIMIZER, 1),
    "an evaluation that records graphs before step 5": (Config(has_evaluation=True), Phase.RNG, LATE),
    "eval mode from step 5 on": (Config(has_late_eval=True), Phase.FORWARD, LATE),
    "logits scaled from step 5 on": (Config(late_scale=1.5), Phase.FORWARD, LATE),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("is_seeded", [True, False])
def test_a_change_of_one_line_is_blamed_on_its_phase(
    name: str, is_seeded: bool, baseline: Trajectory, tmp_path: Path
) -> None:
    config, phase, step = CHANGES[name]
    if not is_seeded:
        # Nothing is drawn from it: in another state in every process, it must not be blamed.
        random.seed()
    found = compare_trajectories(baseline, record(tmp_path, config, train)).divergence
    assert found is not None
    assert (found.phase, found.step) == (phase, step), found


@pytest.mark.parametrize(
    ("config", "phase"),
    [(Config(late_smoothing=0.1), Phase.LOSS), (Config(late_scale=1.5), Phase.FORWARD)],
    ids=["a term of the loss", "outputs of the model"],
)
def test_of_a_closure_the_first_call_tells_loss_and_forward_apart(
    config: Config, phase: Phase, tmp_path: Path
) -> None:
    stored = record(tmp_path, Config(), train_by_closure)
    assert compare_trajectories(stored, record(tmp_path, Config(), train_by_closure)).match is Match.MATCHES
    found = compare_trajectories(stored, record(tmp_path, config, train_by_closure)).divergence
    assert found is not None
    assert (found.phase, found.step) == (phase, LATE), found


def test_the_rate_of_a_closures_optimizer_is_no_loss(tmp_path: Path) -> None:
    stored = record(tmp_path, Config(), train_by_closure)
    assert [len(deep.losses) for deep in stored.deep] == [1, 1]
    found = compare_trajectories(stored, record(tmp_path, Config(rate=0.2), train_by_closure)).divergence
    assert found is not None
    assert (found.phase, found.step) == (Phase.SCHEDULE, 0), found


def train_two(config: Config) -> None:
    """Two models of one class, as an actor and a critic."""
    torch.manual_seed(config.seed)
    inputs = torch.randn(32, 8)
    actor, critic = (
        nn.Sequential(nn.Linear(8, 4), nn.Dropout(dropout), nn.Linear(4, 1))
        for dropout in (0.1, config.dropout)
    )
    critic[0].eval()
    optimizer = torch.optim.SGD([*actor.parameters(), *critic.parameters()], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        mse_loss(actor(inputs) + critic(inputs), inputs.sum(1, keepdim=True)).backward()
        optimizer.step()


def test_a_module_has_one_name_as_output_as_setting_and_as_holder_of_parameters(tmp_path: Path) -> None:
    stored = record(tmp_path, Config(), train_two)
    first = stored.deep[0]
    assert list(first.outputs) == [
        f"{model}{name}" for model in ("Sequential", "Sequential2") for name in (".0", ".1", ".2", "")
    ]
    assert first.in_eval_mode == ("Sequential2.0",)
    assert "Sequential2.0.weight" in stored.parameters[0]
    assert stored.settings["forward"]["Sequential2.1"] == "Dropout(p=0.1, inplace=False)"

    found = compare_trajectories(stored, record(tmp_path, Config(dropout=0.5), train_two)).divergence
    assert found is not None
    assert found.item == "output of `Sequential2.1`"
    assert found.causes == ("Sequential2.1: Dropout(p=0.1, inplace=False) -> Dropout(p=0.5, inplace=False).",)


def train_sharing(config: Config) -> None:
    """An actor and a critic that share their first layers."""
    torch.manual_seed(config.seed)
    inputs = torch.randn(32, 8)
    encoder = nn.Sequential(nn.Linear(8, 6), nn.Dropout(0.1))
    actor = nn.Sequential(encoder, nn.Linear(6, 1))
    critic = nn.Sequential(encoder, nn.Linear(6, 4), nn.Dropout(config.dropout), nn.Linear(4, 1))
    held = [*actor.parameters(), *critic[1:].parameters()]
    optimizer = torch.optim.SGD(held, lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        mse_loss(actor(inputs) + critic(inputs), inputs.sum(1, keepdim=True)).backward()
        optimizer.step()


def test_models_that_share_layers_have_names_of_their_own(tmp_path: Path) -> None:
    stored = record(tmp_path, Config(), train_sharing)
    shared = ["Sequential.0.0", "Sequential.0.1", "Sequential.0"]
    own = ["Sequential2.1", "Sequential2.2", "Sequential2.3", "Sequential2"]
    assert list(stored.deep[0].outputs) == [*shared, "Sequential.1", "Sequential", *own]
    described = [name for name in stored.settings["forward"] if name.startswith("Sequential")]
    assert described == [*shared[:2], "Sequential.1", *own[:3]]
    weights = [name.removesuffix(".weight") for name in stored.parameters[0] if name.endswith("weight")]
    assert weights == ["Sequential.0.0", "Sequential.1", "Sequential2.1", "Sequential2.3"]

    found = compare_trajectories(stored, record(tmp_path, Config(dropout=0.5), train_sharing)).divergence
    assert found is not None
    assert found.item == "output of `Sequential2.2`"
    assert found.causes[0].startswith("Sequential2.2: Dropout(p=0.1")


@pytest.mark.parametrize(
    "name", ["dropout", "label smoothing", "betas", "weight decay", "warm-up", "clipping"]
)
def test_it_is_found_on_another_kind_of_machine_too(name: str, baseline: Trajectory, tmp_path: Path) -> None:
    config, phase, _ = CHANGES[name]
    elsewhere = replace(
        baseline, numerics_class="elsewhere", machine={**baseline.machine, "cpu": "Other CPU"}
    )
    assert compare_trajectories(elsewhere, record(tmp_path, Config(), train)).match is Match.MATCHES
    found = compare_trajectories(elsewhere, record(tmp_path, config, train))
    assert not found.is_exact
    assert found.divergence is not None
    assert found.divergence.phase is phase, found.divergence
