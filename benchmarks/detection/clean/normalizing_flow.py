"""A normalizing flow of narrow data: its negative log-likelihood is a density's and falls below zero."""

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor, nn


class Coupling(nn.Module):
    """Scales and shifts half of the numbers by what the other half says; starts as the identity on purpose."""

    def __init__(self, mask: Tensor, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(len(mask), width), nn.Tanh(), nn.Linear(width, 2 * len(mask)))
        nn.init.zeros_(self.net[-1].get_parameter("weight"))
        nn.init.zeros_(self.net[-1].get_parameter("bias"))
        self.mask: Tensor
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The numbers moved, and the logarithm of the determinant."""
        scale, shift = self.net(x * self.mask).chunk(2, dim=1)
        scale = 2 * torch.tanh(scale) * (1 - self.mask)
        return x * scale.exp() + shift * (1 - self.mask), scale.sum(1)


class Flow(nn.Module):
    """Couplings in turns."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        masks = [torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])]
        self.couplings = nn.ModuleList(Coupling(masks[index % 2], 32) for index in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        """Log-density of each point."""
        total = torch.zeros(len(x))
        for coupling in self.couplings:
            x, determinant = coupling(x)
            total = total + determinant
        density: Tensor = total - 0.5 * x.pow(2).sum(1) - math.log(2 * math.pi)
        return density


def main() -> None:
    """Fits two thin moons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--depth", type=int, default=6)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    flow = Flow(args.depth)
    optimizer = torch.optim.Adam(flow.parameters(), lr=5e-3)
    for step in range(args.steps):
        angle = math.pi * torch.rand(128)
        points = 0.3 * torch.stack([angle.cos(), angle.sin() - 0.6], 1) + 0.02 * torch.randn(128, 2)
        loss = -flow(points).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(flow.parameters(), 5.0)
        optimizer.step()
        if step % 25 == 0:
            print(step, loss.item())
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(flow.state_dict(), args.out / "flow.pt")


if __name__ == "__main__":
    main()
