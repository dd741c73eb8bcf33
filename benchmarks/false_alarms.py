"""How often the loss rules flag a clean training, and how often they see a training that learns nothing.

Real little trainings over programs, numbers of steps, learning rates, batch sizes and seeds; each is run clean
and with learning rate 0. Prints two Markdown tables; a cell counts the runs with an error of `assert_healthy`,
and behind the slash those in which `assert_loss_decreases` fails. `--seeds N` sets the number of seeds.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from harness.record.run import TrainingRun
from harness.record.watched import build_watched_steps
from harness.rules.diagnosis import diagnose
from harness.watch.environment import capture_environment
from harness.watch.observer import Observer

if TYPE_CHECKING:
    from harness.record.observation import RunObservation

Program = tuple[nn.Module, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]

STEPS = (10, 30, 100)
BATCH_SIZES = (4, 32)
LEARNING_RATES = {"low": 1e-3, "usual": 1e-2}


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """The handwritten digits: images (N, 64) scaled to 0..1, labels (N,)."""
    data = load_digits()
    return torch.tensor(data.data, dtype=torch.float32) / 16, torch.tensor(data.target)


IMAGES, LABELS = digits()


def build_classifier() -> Program:
    """A two-layer classifier of the digits."""
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    return model, lambda images, labels: functional.cross_entropy(model(images), labels)


def build_convolution() -> Program:
    """A small convolutional net with batch norm and dropout."""
    model = nn.Sequential(
        *(nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Flatten(), nn.Dropout(0.3), nn.Linear(16 * 64, 10)),
    )
    return model, lambda images, labels: functional.cross_entropy(model(images), labels, label_smoothing=0.1)


def build_autoencoder() -> Program:
    """An autoencoder of the images."""
    model = nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 64))
    return model, lambda images, _labels: functional.mse_loss(model(images), images)


def build_language_model() -> Program:
    """A recurrent model of the pixels as 17 tokens, read row by row."""
    embed, core, head = nn.Embedding(17, 32), nn.GRU(32, 32, batch_first=True), nn.Linear(32, 17)
    model = nn.ModuleList([embed, core, head])

    def loss(images: torch.Tensor, _labels: torch.Tensor) -> torch.Tensor:
        tokens = (images * 16).long()
        logits = head(core(embed(tokens[:, :-1]))[0])
        return functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())

    return model, loss


PROGRAMS = {
    "classifier": build_classifier,
    "convolution": build_convolution,
    "autoencoder": build_autoencoder,
    "language model": build_language_model,
}


def train(
    build: Callable[[], Program], *, steps: int, batch_size: int, lr: float, seed: int
) -> RunObservation:
    """What is watched of one clean training with AdamW; `lr=0` makes it one that learns nothing."""
    torch.manual_seed(seed)
    model, compute_loss = build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    with Observer() as observer:
        for _ in range(steps):
            batch = torch.randint(len(IMAGES), (batch_size,))
            loss = compute_loss(IMAGES[batch], LABELS[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return observer.observation


def judge(observation: RunObservation) -> tuple[bool, bool]:
    """Whether a watched run has an error finding, and whether its loss is not shown to fall."""
    run = TrainingRun(
        name="benchmark",
        steps=build_watched_steps(observation),
        source="benchmark",
        loss_name="loss",
        run_dir=Path(),
        device="cpu",
        seed=None,
        threads=1,
        wall_clock_s=0.0,
        peak_memory_bytes=None,
        environment=capture_environment(),
        observed=observation,
    )
    diagnosis = diagnose(run)
    return bool(diagnosis.errors), bool(diagnosis.findings)


def main() -> None:
    """Runs the grid and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    seeds = parser.parse_args().seeds
    torch.set_num_threads(1)
    start_s = time.perf_counter()
    errors: Counter[tuple[str, ...]] = Counter()
    findings: Counter[tuple[str, ...]] = Counter()
    num_runs = 0
    grid = itertools.product(PROGRAMS.items(), STEPS, BATCH_SIZES, LEARNING_RATES.items(), range(seeds))
    for (name, build), steps, batch_size, (lr_name, lr), seed in grid:
        for kind, used_lr in (("clean", lr), ("learning rate 0", 0.0)):
            if kind != "clean" and lr_name != "usual":
                continue
            cell = (
                kind,
                f"{steps} steps, batch {batch_size}" + (f", {lr_name} rate" if kind == "clean" else ""),
            )
            has_error, has_finding = judge(
                train(build, steps=steps, batch_size=batch_size, lr=used_lr, seed=seed)
            )
            num_runs += 1
            for key in ((*cell, name), (*cell, "all")):
                errors[key] += has_error
                findings[key] += has_finding
    columns = [*PROGRAMS, "all"]
    for kind in ("clean", "learning rate 0"):
        rows = list(dict.fromkeys(key[1] for key in errors if key[0] == kind))
        sys.stdout.write(f"\n{kind}, {seeds} seeds a cell, {4 * seeds} in the last column\n\n")
        sys.stdout.write(f"| setting | {' | '.join(columns)} |\n|{' --- |' * (len(columns) + 1)}\n")
        for row in rows:
            cells = [f"{errors[kind, row, name]} / {findings[kind, row, name]}" for name in columns]
            sys.stdout.write(f"| {row} | {' | '.join(cells)} |\n")
    sys.stdout.write(f"\n{num_runs} runs in {time.perf_counter() - start_s:.0f} s\n")


if __name__ == "__main__":
    main()
