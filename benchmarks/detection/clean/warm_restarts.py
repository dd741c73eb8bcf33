"""Cosine annealing with warm restarts: the rate jumps back up several times, and the loss may jump with it."""

import argparse
from pathlib import Path

import torch
from torch import nn


def main() -> None:
    """Fits a noisy surface."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=90)
    parser.add_argument("--restart-after", type=int, default=15)
    parser.add_argument("--stretch", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    places = torch.rand(1000, 2) * 2 - 1
    heights = (2 * places[:, :1]).sin() + (3 * places[:, 1:]).cos() + 0.1 * torch.randn(1000, 1)
    model = nn.Sequential(nn.Linear(2, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(
        optimizer, T_0=args.restart_after, T_mult=args.stretch, eta_min=1e-5
    )
    loss_fn = nn.MSELoss()
    for step in range(args.steps):
        picked = torch.randint(1000, (64,))
        loss = loss_fn(model(places[picked]), heights[picked])
        loss.backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        if step % 10 == 0:
            print(f"{step} loss {loss.item():.4f} lr {scheduler.get_last_lr()[0]:.2e}")
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out / "surface.pt")


if __name__ == "__main__":
    main()
