# mypy: ignore-errors
"""Trains a variational autoencoder on drawn blobs, in mixed precision with a loss scaler."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

SIZE = 10


def draw_blobs(num_images, seed):
    """Images of one soft blob each, between 0 and 1, shape (N, SIZE * SIZE)."""
    generator = torch.Generator().manual_seed(seed)
    centres = 2 + (SIZE - 5) * torch.rand(num_images, 2, 1, 1, generator=generator)
    widths = 1 + torch.rand(num_images, 1, 1, generator=generator)
    rows, columns = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    distance = (rows - centres[:, 0]) ** 2 + (columns - centres[:, 1]) ** 2
    return torch.exp(-distance / (2 * widths**2)).flatten(1)


class Autoencoder(nn.Module):
    def __init__(self, width=96, latent=6):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(SIZE * SIZE, width), nn.LayerNorm(width), nn.GELU())
        self.mean = nn.Linear(width, latent)
        self.log_variance = nn.Linear(width, latent)
        self.decoder = nn.Sequential(
            nn.Linear(latent, width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, SIZE * SIZE),
        )

    def forward(self, images):
        hidden = self.encoder(images)
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)
        code = mean
        if self.training:
            code = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
        return self.decoder(code), mean, log_variance


def build_optimizer(model, lr):
    return torch.optim.Adam(model.parameters(), lr=lr)


def compute_loss(output, images, kl_weight):
    """Reconstruction error, and the distance of the code from a normal distribution."""
    logits, mean, log_variance = output
    reconstruction = functional.binary_cross_entropy_with_logits(logits.float(), images)
    mean, log_variance = mean.float(), log_variance.float()
    divergence = -0.5 * (1 + log_variance - mean.pow(2) - log_variance.exp()).sum(1).mean()
    return reconstruction + kl_weight * divergence


@torch.no_grad()
def evaluate(model, loader, kl_weight):
    model.eval()
    total = 0.0
    for (images,) in loader:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = model(images)
        total += compute_loss(output, images, kl_weight).item() * len(images)
    model.train()
    return total / len(loader.dataset)


def train(args):
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    train_set = TensorDataset(draw_blobs(640, seed=1000 + args.seed))
    val_set = TensorDataset(draw_blobs(128, seed=5000 + args.seed))
    train_loader = DataLoader(train_set, batch_size=args.batch_size, shuffle=True, drop_last=True)
    val_loader = DataLoader(val_set, batch_size=64)

    model = Autoencoder()
    optimizer = build_optimizer(model, args.lr)
    warmup = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.2, total_iters=5)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=20)

    step = 0
    with (args.out / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["step", "loss", "lr", "grad_norm", "scale", "val_loss"])
        writer.writeheader()
        while step < args.steps:
            for (images,) in train_loader:
                optimizer.zero_grad(set_to_none=True)
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    output = model(images)
                loss = compute_loss(output, images, args.kl_weight)
                scaler.scale(loss).backward()
                scaler.unscale_(optimizer)
                grad_norm = nn.utils.clip_grad_norm_(model.parameters(), args.clip)
                scaler.step(optimizer)
                scaler.update()
                step += 1
                row = {"step": step, "loss": loss.item(), "lr": warmup.get_last_lr()[0]}
                row |= {"grad_norm": grad_norm.item(), "scale": scaler.get_scale()}
                warmup.step()
                if step % args.eval_every == 0 or step == args.steps:
                    row["val_loss"] = evaluate(model, val_loader, args.kl_weight)
                    torch.save(
                        {
                            "model": model.state_dict(),
                            "optimizer": optimizer.state_dict(),
                            "scheduler": warmup.state_dict(),
                            "scaler": scaler.state_dict(),
                            "step": step,
                            "rng": torch.get_rng_state(),
                        },
                        args.out / "checkpoint.pt",
                    )
                writer.writerow(row)
                if step == args.steps:
                    break


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("run"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--kl-weight", type=float, default=2e-3)
    parser.add_argument("--clip", type=float, default=0.1)
    parser.add_argument("--eval-every", type=int, default=20)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
