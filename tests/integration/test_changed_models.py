"""Trainings of several models, changed in one line: the phase and step that are blamed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from harness.baselines.comparison import Match, compare_trajectories
from harness.baselines.trajectory import Phase
from tests.integration.recorded import record

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.baselines.trajectory import Trajectory

    Program = Callable[["Config"], None]

STEPS = 20
LATE = 9
"""A step that is not among the first ones."""


@dataclass(frozen=True)
class Config:
    """Every line that a test changes."""

    is_cleared: bool = True
    is_detached: bool = True
    max_norm: float = 0.05
    critic_max_norm: float | None = None
    bound: float = 0.05
    activation: type[nn.Module] = nn.Tanh
    encoder_scale: float = 1.0
    extra_draws: int = 0
    teaches_in_training_mode_from: int = STEPS
    is_teacher_detached: bool = True
    decay: float = 0.9
    critic_rate: float = 1e-2
    copied_every: int = 4
    noise: float = 1.0
    seed: int = 0
    glue: float = 1.0
    temperature: float = 1.0
    is_frozen_in_eval_mode: bool = True


class Actor(nn.Sequential):
    """A network with a name of its own."""


class Critic(Actor):
    """Another one."""


class Encoder(Actor):
    """One that is frozen."""


class Student(Actor):
    """One with dropout, so that a copy of it has a mode."""


def build(kind: type[Actor], activation: type[nn.Module] = nn.Tanh, *, drops: bool = False) -> Actor:
    return kind(nn.Linear(8, 16), activation(), nn.Dropout(0.1 if drops else 0.0), nn.Linear(16, 1))


def draw_data(config: Config) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(config.seed)
    inputs = torch.randn(64, 8) * config.noise
    return inputs, inputs.sum(1, keepdim=True).tanh()


def train_actor_and_critic(config: Config) -> None:
    """Two models with an optimizer each, of which only one is clipped."""
    inputs, targets = draw_data(config)
    actor = build(Actor)
    torch.rand(config.extra_draws)
    critic = build(Critic)
    optimizers = [
        torch.optim.Adam(actor.parameters(), lr=1e-2),
        torch.optim.Adam(critic.parameters(), lr=config.critic_rate),
    ]
    for _ in range(STEPS):
        rows = torch.randint(0, 64, (16,))
        value = critic(inputs[rows])
        advantage = targets[rows] - value
        known = advantage.detach() if config.is_detached else advantage
        optimizers[0].zero_grad()
        if config.is_cleared:
            optimizers[1].zero_grad()
        (actor(inputs[rows]) * known).mean().backward(retain_graph=True)
        advantage.square().mean().backward()
        clip_grad_norm_(actor.parameters(), config.max_norm)
        if config.critic_max_norm is not None:
            clip_grad_norm_(critic.parameters(), config.critic_max_norm)
        for optimizer in optimizers:
            optimizer.step()


def train_head(config: Config) -> None:
    """A head behind an encoder that is frozen, clipped by value."""
    inputs, targets = draw_data(config)
    encoder, head = build(Encoder, config.activation), nn.Linear(1, 1)
    with torch.no_grad():
        encoder[0].weight.mul_(config.encoder_scale)  # type: ignore[operator]
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    for _ in range(STEPS):
        rows = torch.randint(0, 64, (16,))
        with torch.no_grad():
            features = config.glue * encoder(inputs[rows])
        optimizer.zero_grad()
        mse_loss(head(features), targets[rows]).backward()
        clip_grad_value_(head.parameters(), config.bound)
        optimizer.step()


def train_student(config: Config) -> None:
    """A student that follows an average of itself."""
    inputs, targets = draw_data(config)
    student, teacher = build(Student, drops=True), build(Encoder, drops=True)
    teacher.load_state_dict(student.state_dict())
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-2)
    for step in range(STEPS):
        rows = torch.randint(0, 64, (16,))
        teacher.train(step >= config.teaches_in_training_mode_from)
        with torch.set_grad_enabled(not config.is_teacher_detached):
            followed = teacher(inputs[rows]).detach()
        given = student(inputs[rows])
        loss = mse_loss(given, targets[rows]) + mse_loss(given, followed)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for average, parameter in zip(teacher.parameters(), student.parameters(), strict=True):
                average.lerp_(parameter, 1 - config.decay)


def train_towards_copy(config: Config) -> None:
    """A critic that follows a copy of itself, made anew every few steps."""
    inputs, targets = draw_data(config)
    critic, copied = build(Critic, config.activation), build(Encoder)
    copied.load_state_dict(critic.state_dict())
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-2)
    for step in range(STEPS):
        if step % config.copied_every == 0:
            copied.load_state_dict(critic.state_dict())
        rows = torch.randint(0, 64, (16,))
        with torch.no_grad():
            wanted = targets[rows] + 0.9 * copied(inputs[rows])
        optimizer.zero_grad()
        mse_loss(critic(inputs[rows]), wanted).backward()
        optimizer.step()


def train_one_after_another(config: Config) -> None:
    """A model that is built once another one has been trained."""
    inputs, targets = draw_data(config)
    for kind in (Actor, Critic):
        model = build(kind)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(STEPS // 2):
            rows = torch.randint(0, 64, (16,))
            optimizer.zero_grad()
            mse_loss(model(inputs[rows]), targets[rows]).backward()
            optimizer.step()
        torch.rand(config.extra_draws)


def train_chain(config: Config) -> None:
    """Two models, one behind the other, and two terms of the loss."""
    inputs, targets = draw_data(config)
    first, second = nn.Linear(8, 8), build(Critic)
    optimizer = torch.optim.Adam([*first.parameters(), *second.parameters()], lr=1e-2)
    for _ in range(STEPS):
        rows = torch.randint(0, 64, (16,))
        given = second(config.glue * first(inputs[rows])) / config.temperature
        optimizer.zero_grad()
        (mse_loss(given, targets[rows]) + mse_loss(given.square(), targets[rows].square())).backward()
        optimizer.step()


def train_and_freeze(config: Config) -> None:
    """An encoder that is trained with a head, and then frozen under another one."""
    inputs, targets = draw_data(config)
    encoder = Encoder(nn.Linear(8, 8), nn.BatchNorm1d(8))
    whole = nn.Sequential(encoder, nn.Linear(8, 1))
    head = build(Critic)
    for model in (whole, head):
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        if model is head:
            encoder.train(not config.is_frozen_in_eval_mode)
        for _ in range(STEPS // 2):
            rows = torch.randint(0, 64, (16,))
            features = inputs[rows]
            if model is head:
                with torch.no_grad():
                    features = encoder(features)
            optimizer.zero_grad()
            mse_loss(model(features), targets[rows]).backward()
            optimizer.step()


PROGRAMS: tuple[Program, ...] = (
    train_actor_and_critic,
    train_head,
    train_student,
    train_towards_copy,
    train_one_after_another,
    train_chain,
    train_and_freeze,
)


@pytest.fixture(scope="module")
def baselines(tmp_path_factory: pytest.TempPathFactory) -> dict[Program, Trajectory]:
    folder = tmp_path_factory.mktemp("run")
    return {program: record(folder, Config(), program) for program in PROGRAMS}


@pytest.mark.parametrize("program", PROGRAMS)
def test_unchanged_programs_match(
    program: Program, baselines: dict[Program, Trajectory], tmp_path: Path
) -> None:
    found = compare_trajectories(baselines[program], record(tmp_path, Config(), program))
    assert (found.match, found.is_exact) == (Match.MATCHES, True)


DATA, RNG, INITIALISATION, FORWARD = Phase.DATA, Phase.RNG, Phase.INITIALISATION, Phase.FORWARD
GRADIENTS, CLIPPING, OPTIMIZER, SCHEDULE = Phase.GRADIENTS, Phase.CLIPPING, Phase.OPTIMIZER, Phase.SCHEDULE


@pytest.mark.parametrize(
    ("program", "config", "phase", "step"),
    [
        (train_actor_and_critic, Config(is_cleared=False), GRADIENTS, 1),
        (train_actor_and_critic, Config(is_detached=False), GRADIENTS, 0),
        (train_actor_and_critic, Config(max_norm=0.04), CLIPPING, 0),
        (train_actor_and_critic, Config(critic_max_norm=0.05), CLIPPING, 0),
        (train_actor_and_critic, Config(critic_rate=2e-2), SCHEDULE, 0),
        (train_actor_and_critic, Config(extra_draws=1), RNG, 0),
        (train_actor_and_critic, Config(noise=1.5), DATA, 0),
        (train_actor_and_critic, Config(seed=1), RNG, 0),
        (train_head, Config(bound=0.04), CLIPPING, 0),
        (train_head, Config(activation=nn.ReLU), FORWARD, 0),
        (train_head, Config(encoder_scale=1.5), INITIALISATION, 0),
        (train_head, Config(noise=1.5), DATA, 0),
        (train_head, Config(seed=1), RNG, 0),
        (train_student, Config(teaches_in_training_mode_from=0), FORWARD, 0),
        (train_student, Config(teaches_in_training_mode_from=LATE), FORWARD, LATE),
        (train_student, Config(decay=0.8), OPTIMIZER, 1),
        (train_towards_copy, Config(copied_every=5), OPTIMIZER, 4),
        (train_towards_copy, Config(activation=nn.ReLU), FORWARD, 0),
        (train_one_after_another, Config(extra_draws=1), RNG, STEPS // 2),
        (train_head, Config(glue=2.0), FORWARD, 0),
        (train_chain, Config(glue=2.0), FORWARD, 0),
        (train_chain, Config(temperature=2.0), Phase.LOSS, 0),
        (train_chain, Config(noise=1.5), DATA, 0),
        (train_and_freeze, Config(is_frozen_in_eval_mode=False), FORWARD, STEPS // 2),
    ],
)
def test_the_phase_that_was_changed_is_named(
    program: Program,
    config: Config,
    phase: Phase,
    step: int,
    baselines: dict[Program, Trajectory],
    tmp_path: Path,
) -> None:
    found = compare_trajectories(baselines[program], record(tmp_path, config, program)).divergence
    assert found is not None
    assert (found.phase, found.step) == (phase, step), found


def test_a_teacher_that_records_a_graph_has_a_mode_as_well(tmp_path: Path) -> None:
    baseline = record(tmp_path, Config(is_teacher_detached=False), train_student)
    changed = Config(is_teacher_detached=False, teaches_in_training_mode_from=LATE)
    found = compare_trajectories(baseline, record(tmp_path, changed, train_student)).divergence
    assert found is not None
    assert (found.phase, found.step) == (FORWARD, LATE), found
