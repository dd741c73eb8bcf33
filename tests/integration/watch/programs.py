"""Little training programs of every style; each returns the losses and norms it computed itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.nn.utils import clip_grad_norm_
from torch.utils.data import DataLoader, TensorDataset

if TYPE_CHECKING:
    from collections.abc import Iterator

NUM_STEPS = 6


@dataclass
class Facts:
    """What a program knows of its own run, one entry per optimizer step."""

    losses: list[float] = field(default_factory=list)
    learning_rates: list[float] = field(default_factory=list)
    grad_norms: list[float] = field(default_factory=list)


def build_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 4))


def build_batches(num: int, size: int = 8) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(num):
        yield torch.randn(size, 8, generator=generator), torch.randint(0, 4, (size,), generator=generator)


def measure_norm(model: nn.Module) -> float:
    return float(nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None]))


def train_plain(optimizer_kind: Any = torch.optim.SGD, **options: Any) -> Facts:
    model = build_model()
    optimizer = optimizer_kind(model.parameters(), lr=0.05, **options)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    facts = Facts()
    for inputs, targets in build_batches(NUM_STEPS):
        optimizer.zero_grad()
        loss = cross_entropy(model(inputs), targets)
        loss.backward()
        facts.grad_norms.append(measure_norm(model))
        facts.learning_rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
        facts.losses.append(loss.item())
    return facts


def train_foreach() -> Facts:
    return train_plain(torch.optim.AdamW, foreach=True)


def train_fused() -> Facts:
    return train_plain(torch.optim.AdamW, fused=True)


def train_accumulating() -> Facts:
    model = build_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    facts, total = Facts(), 0.0
    for index, (inputs, targets) in enumerate(build_batches(3 * NUM_STEPS)):
        loss = cross_entropy(model(inputs), targets) / 3
        loss.backward()
        total += loss.item()
        if index % 3 == 2:
            facts.grad_norms.append(float(clip_grad_norm_(model.parameters(), 0.2)))
            facts.learning_rates.append(0.05)
            optimizer.step()
            optimizer.zero_grad()
            facts.losses.append(total)
            total = 0.0
    return facts


def train_gan() -> Facts:
    torch.manual_seed(0)
    generator, critic = nn.Linear(4, 8), nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
    for_generator = torch.optim.Adam(generator.parameters(), lr=0.01)
    for_critic = torch.optim.Adam(critic.parameters(), lr=0.02)
    facts = Facts()
    for real, _ in build_batches(NUM_STEPS):
        fake = generator(torch.randn(8, 4))
        for_critic.zero_grad()
        loss_critic = critic(fake.detach()).mean() - critic(real).mean()
        loss_critic.backward()
        facts.grad_norms.append(measure_norm(critic))
        for_critic.step()
        for_generator.zero_grad()
        loss_generator = -critic(fake).mean()
        loss_generator.backward()
        facts.grad_norms.append(measure_norm(generator))
        for_generator.step()
        facts.losses += [loss_critic.item(), loss_generator.item()]
        facts.learning_rates += [0.02, 0.01]
    return facts


def train_two_optimizers_one_backward() -> Facts:
    torch.manual_seed(0)
    body, head = nn.Linear(8, 8), nn.Linear(8, 4)
    optimizers = [torch.optim.SGD(body.parameters(), lr=0.1), torch.optim.Adam(head.parameters(), lr=0.01)]
    facts = Facts()
    for inputs, targets in build_batches(NUM_STEPS):
        loss = cross_entropy(head(torch.relu(body(inputs))), targets)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        facts.losses.append(loss.item())
        facts.learning_rates.append(0.1)
    return facts


def train_lbfgs() -> Facts:
    model = build_model().eval()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=4)
    facts = Facts()
    for inputs, targets in build_batches(NUM_STEPS):

        def closure(inputs: torch.Tensor = inputs, targets: torch.Tensor = targets) -> torch.Tensor:
            optimizer.zero_grad()
            loss = cross_entropy(model(inputs), targets)
            loss.backward()
            return loss

        facts.losses.append(optimizer.step(closure).item())
        facts.learning_rates.append(0.5)
    return facts


def train_amp(*, fused: bool = False, overflow_at: int | None = None) -> Facts:
    model = build_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    facts = Facts()
    for step, (inputs, targets) in enumerate(build_batches(NUM_STEPS)):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = cross_entropy(model(inputs), targets)
        if step == overflow_at:
            loss = loss * float("inf")
        scaler.scale(loss).backward()
        if not fused:
            scaler.unscale_(optimizer)
            facts.grad_norms.append(float(clip_grad_norm_(model.parameters(), 1.0)))
        else:
            facts.grad_norms.append(measure_norm(model) / 1024.0)
        scaler.step(optimizer)
        scaler.update()
        facts.losses.append(loss.item())
        facts.learning_rates.append(0.01)
    return facts


def train_amp_fused() -> Facts:
    return train_amp(fused=True)


def train_checkpointed() -> Facts:
    from torch.utils.checkpoint import checkpoint

    model = build_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    facts = Facts()
    for inputs, targets in build_batches(NUM_STEPS):
        hidden = checkpoint(model, inputs.requires_grad_(), use_reentrant=True)
        loss = cross_entropy(hidden, targets)
        loss.backward()
        facts.grad_norms.append(measure_norm(model))
        optimizer.step()
        optimizer.zero_grad()
        facts.losses.append(loss.item())
        facts.learning_rates.append(0.05)
    return facts


def train_optimizer_in_backward() -> Facts:
    model = build_model()
    optimizers: dict[torch.Tensor, torch.optim.Optimizer] = {
        parameter: torch.optim.SGD([parameter], lr=0.05) for parameter in model.parameters()
    }

    def step_one(parameter: torch.Tensor) -> None:
        optimizers[parameter].step()
        optimizers[parameter].zero_grad()

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(step_one)
    facts = Facts()
    for inputs, targets in build_batches(NUM_STEPS):
        loss = cross_entropy(model(inputs), targets)
        loss.backward()
        facts.losses.append(loss.item())
        facts.learning_rates.append(0.05)
    return facts


def train_from_loader(num_workers: int = 0, num_epochs: int = 2) -> Facts:
    model = build_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    inputs, targets = zip(*build_batches(3), strict=True)
    loader = DataLoader(
        TensorDataset(torch.cat(inputs), torch.cat(targets)),
        batch_size=8,
        shuffle=True,
        num_workers=num_workers,
    )
    facts = Facts()
    for _ in range(num_epochs):
        model.train()
        for batch, labels in loader:
            loss = cross_entropy(model(batch), labels)
            loss.backward()
            facts.grad_norms.append(measure_norm(model))
            optimizer.step()
            optimizer.zero_grad()
            facts.losses.append(loss.item())
            facts.learning_rates.append(0.05)
        model.eval()
        with torch.no_grad():
            for batch, labels in build_batches(2):
                mse_loss(model(batch).argmax(-1).float(), labels.float())
    return facts


STYLES = {
    "plain": train_plain,
    "foreach": train_foreach,
    "fused": train_fused,
    "accumulating": train_accumulating,
    "gan": train_gan,
    "two optimizers, one backward": train_two_optimizers_one_backward,
    "lbfgs": train_lbfgs,
    "amp": train_amp,
    "amp fused": train_amp_fused,
    "checkpointed": train_checkpointed,
    "optimizer in backward": train_optimizer_in_backward,
    "loader": train_from_loader,
}
