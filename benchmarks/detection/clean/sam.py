"""Sharpness-aware minimization: two backwards a step, the first one only to climb to the worst point nearby."""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


class SAM:
    """Climbs before, and comes back for, the step of an ordinary optimizer."""

    def __init__(self, optimizer: torch.optim.Optimizer, rho: float) -> None:
        self.optimizer = optimizer
        self.rho = rho
        self.climbs: list[tuple[Tensor, Tensor]] = []

    @torch.no_grad()
    def climb(self) -> None:
        """Moves along the gradient by rho."""
        parameters = [
            p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None
        ]
        norm = torch.stack([p.grad.norm() for p in parameters]).norm()
        self.climbs = [(p, p.grad * (self.rho / (norm + 1e-12))) for p in parameters]
        for parameter, climb in self.climbs:
            parameter.add_(climb)
        self.optimizer.zero_grad()

    @torch.no_grad()
    def descend(self) -> None:
        """Comes back and steps with the gradient found there."""
        for parameter, climb in self.climbs:
            parameter.sub_(climb)
        self.optimizer.step()
        self.optimizer.zero_grad()


def main() -> None:
    """Trains a classifier of two moons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rho", type=float, default=0.05)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    model = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    sam = SAM(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), args.rho)
    for step in range(args.steps):
        labels = torch.randint(2, (64,))
        angle = torch.pi * torch.rand(64)
        moons = torch.stack([angle.cos() + labels, angle.sin() * (1 - 2 * labels) + 0.4 * labels], 1)
        points = moons + 0.12 * torch.randn(64, 2)
        loss = functional.cross_entropy(model(points), labels)
        loss.backward()
        sam.climb()
        functional.cross_entropy(model(points), labels).backward()
        sam.descend()
        if step % 20 == 0:
            print(step, loss.item())
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out / "model.pt")


if __name__ == "__main__":
    main()
