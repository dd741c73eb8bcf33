"""Stochastic depth: whole residual blocks are left out at random while training."""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn


class DropBlockNet(nn.Module):
    """Residual blocks of which the later ones are dropped more often."""

    def __init__(self, depth: int, drop: float) -> None:
        super().__init__()
        self.inputs = nn.Linear(12, 32)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32))
            for _ in range(depth)
        )
        self.head = nn.Linear(32, 5)
        self.drops = torch.linspace(0, drop, depth).tolist()

    def forward(self, x: Tensor) -> Tensor:
        """Scores; blocks that may be dropped are scaled down when all of them run."""
        x = self.inputs(x)
        for block, drop in zip(self.blocks, self.drops, strict=True):
            if not self.training:
                x = x + (1 - drop) * block(x)
            elif torch.rand(()) >= drop:
                x = x + block(x)
        scores: Tensor = self.head(x)
        return scores


def main() -> None:
    """Trains, and checks with all blocks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--depth", type=int, default=5)
    parser.add_argument("--drop", type=float, default=0.5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    centers = torch.randn(5, 12)
    labels = torch.randint(5, (1000,))
    points = centers[labels] + 0.8 * torch.randn(1000, 12)
    model = DropBlockNet(args.depth, args.drop)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(args.steps):
        picked = torch.randint(800, (32,))
        loss = criterion(model(points[picked]), labels[picked])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % 20 == 0:
            model.eval()
            with torch.inference_mode():
                validation = criterion(model(points[800:]), labels[800:]).item()
            model.train()
            print(f"{step + 1}: train {loss.item():.3f} validation {validation:.3f}")
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out / "model.pt")


if __name__ == "__main__":
    main()
