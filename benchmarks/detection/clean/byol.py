"""Self-supervised BYOL: an online net predicts what a slowly moving target net in train mode says of another view."""

import argparse
import copy
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


def mlp(width_in: int, width: int, width_out: int) -> nn.Sequential:
    """Linear, batch norm, ReLU, linear."""
    return nn.Sequential(
        nn.Linear(width_in, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, width_out)
    )


def regress(prediction: Tensor, target: Tensor) -> Tensor:
    """Two minus twice the cosine."""
    return 2 - 2 * functional.cosine_similarity(prediction, target, dim=-1).mean()


class BYOL:
    """Online encoder and predictor, and the target that follows."""

    def __init__(self, momentum: float) -> None:
        self.online = nn.Sequential(mlp(30, 64, 32), mlp(32, 64, 16))
        self.predictor = mlp(16, 64, 16)
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        self.momentum = momentum

    def loss(self, one: Tensor, two: Tensor) -> Tensor:
        """The symmetric loss of two views."""
        with torch.no_grad():
            seen_one, seen_two = self.target(one), self.target(two)
        return regress(self.predictor(self.online(one)), seen_two) + regress(
            self.predictor(self.online(two)), seen_one
        )

    @torch.no_grad()
    def follow(self) -> None:
        """Moves the target after a step."""
        for slow, fast in zip(self.target.parameters(), self.online.parameters(), strict=True):
            slow.mul_(self.momentum).add_(fast, alpha=1 - self.momentum)


def main() -> None:
    """Trains on views of points of eight clusters."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--momentum", type=float, default=0.97)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    centers = 2 * torch.randn(8, 30)
    byol = BYOL(args.momentum)
    learned = [*byol.online.parameters(), *byol.predictor.parameters()]
    optimizer = torch.optim.AdamW(learned, lr=3e-3, weight_decay=1e-4)
    for step in range(args.steps):
        points = centers[torch.randint(8, (args.batch_size,))] + 0.3 * torch.randn(args.batch_size, 30)
        views = [points + 0.4 * torch.randn_like(points) for _ in range(2)]
        loss = byol.loss(*views)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        byol.follow()
        if (step + 1) % 20 == 0:
            print(f"{step + 1:4d} {loss.item():.4f}")
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(byol.online.state_dict(), args.out / "encoder.pt")


if __name__ == "__main__":
    main()
