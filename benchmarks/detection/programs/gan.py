# mypy: ignore-errors
"""Trains a generator against a discriminator on points of a ring (least-squares GAN)."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

NUM_MODES = 8


def draw_points(num_points, seed):
    """Points near eight places on a circle, shape (N, 2)."""
    generator = torch.Generator().manual_seed(seed)
    angles = torch.randint(NUM_MODES, (num_points,), generator=generator) * (2 * math.pi / NUM_MODES)
    centres = torch.stack([angles.cos(), angles.sin()], dim=1)
    return centres + 0.05 * torch.randn(num_points, 2, generator=generator)


class Generator(nn.Module):
    def __init__(self, latent=8, width=48):
        super().__init__()
        self.latent = latent
        self.layers = nn.Sequential(
            nn.Linear(latent, width),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, 2),
        )

    def forward(self, noise):
        return self.layers(noise)


class Discriminator(nn.Module):
    def __init__(self, width=48):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, 1),
        )

    def forward(self, points):
        return self.layers(points)


def build_optimizers(generator, discriminator, lr):
    generator_optimizer = torch.optim.Adam(generator.parameters(), lr=lr, betas=(0.5, 0.99))
    discriminator_optimizer = torch.optim.Adam(discriminator.parameters(), lr=lr, betas=(0.5, 0.99))
    return generator_optimizer, discriminator_optimizer


def discriminator_loss(real_scores, fake_scores):
    real = functional.mse_loss(real_scores, torch.ones_like(real_scores))
    fake = functional.mse_loss(fake_scores, torch.zeros_like(fake_scores))
    return 0.5 * (real + fake)


def generator_loss(fake_scores):
    return functional.mse_loss(fake_scores, torch.ones_like(fake_scores))


@torch.no_grad()
def evaluate(generator, held_out):
    """Mean distance from each held-out point to the nearest of as many made ones."""
    generator.eval()
    noise = torch.randn(len(held_out), generator.latent, generator=torch.Generator().manual_seed(0))
    distances = torch.cdist(held_out, generator(noise))
    generator.train()
    return distances.min(dim=1).values.mean().item()


def endless(loader):
    while True:
        yield from loader


def train(args):
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    points = draw_points(1024, seed=1000 + args.seed)
    held_out = draw_points(128, seed=5000 + args.seed)
    loader = DataLoader(TensorDataset(points), batch_size=args.batch_size, shuffle=True, drop_last=True)

    generator, discriminator = Generator(), Discriminator()
    g_optimizer, d_optimizer = build_optimizers(generator, discriminator, args.lr)
    batches = endless(loader)

    with (args.out / "metrics.jsonl").open("w") as file:
        for step in range(1, args.steps + 1):
            (real,) = next(batches)
            noise = torch.randn(len(real), generator.latent)
            fake = generator(noise)

            d_optimizer.zero_grad()
            d_loss = discriminator_loss(discriminator(real), discriminator(fake.detach()))
            d_loss.backward()
            d_optimizer.step()

            g_optimizer.zero_grad()
            g_loss = generator_loss(discriminator(fake))
            g_loss.backward()
            g_optimizer.step()

            row = {"step": step, "d_loss": d_loss.item(), "g_loss": g_loss.item()}
            if step % args.eval_every == 0 or step == args.steps:
                row["distance"] = evaluate(generator, held_out)
                torch.save(
                    {
                        "generator": generator.state_dict(),
                        "discriminator": discriminator.state_dict(),
                        "g_optimizer": g_optimizer.state_dict(),
                        "d_optimizer": d_optimizer.state_dict(),
                        "step": step,
                        "rng": torch.get_rng_state(),
                    },
                    args.out / "checkpoint.pt",
                )
            file.write(json.dumps(row) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("run"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--eval-every", type=int, default=20)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
