"""Denoising diffusion of points: predicts the noise with a mean squared error and keeps averaged weights."""

import argparse
import copy
import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


class Denoiser(nn.Module):
    """Predicts the noise from a noisy point and the time."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(2 + 16, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2)
        )
        self.register_buffer("frequencies", torch.exp(torch.linspace(0, math.log(100), 8)))

    def forward(self, points: Tensor, time: Tensor) -> Tensor:
        """The noise, [B, 2]."""
        angles = time[:, None] * self.get_buffer("frequencies")
        noise: Tensor = self.net(torch.cat([points, angles.sin(), angles.cos()], 1))
        return noise


def main() -> None:
    """Trains on a spiral."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--ema", type=float, default=0.98)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    model = Denoiser()
    average = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    kept = torch.cumprod(1 - torch.linspace(1e-4, 0.05, 100), 0)
    running = 0.0
    for step in range(1, args.steps + 1):
        turn = 9 * torch.rand(args.batch_size).sqrt()
        points = torch.stack([turn * turn.cos(), turn * turn.sin()], 1) / 4
        time = torch.randint(100, (args.batch_size,))
        noise = torch.randn_like(points)
        share = kept[time, None]
        noisy = share.sqrt() * points + (1 - share).sqrt() * noise
        loss = functional.mse_loss(model(noisy, time / 100), noise)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(average.parameters(), model.parameters(), strict=True):
                slow.lerp_(fast, 1 - args.ema)
        running += loss.item()
        if step % 25 == 0:
            print(f"step {step} loss {running / 25:.4f}")
            running = 0.0
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save({"model": model.state_dict(), "ema": average.state_dict()}, args.out / "diffusion.pt")


if __name__ == "__main__":
    main()
