"""Early stopping that puts the best weights back into the model at the end, on purpose, before it is saved."""

import argparse
import copy
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional


class EarlyStopping:
    """Remembers the best weights, and says when there has been no better for a while."""

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.best = float("inf")
        self.num_worse = 0
        self.weights: dict[str, torch.Tensor] = {}

    def is_over(self, loss: float, model: nn.Module) -> bool:
        """Whether to stop."""
        if loss < self.best:
            self.best, self.num_worse = loss, 0
            self.weights = copy.deepcopy(model.state_dict())
            return False
        self.num_worse += 1
        return self.num_worse >= self.patience


def main() -> None:
    """Trains on few samples, which overfits soon."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--patience", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    labels = torch.randint(3, (400,))
    inputs = 0.9 * torch.randn(3, 15)[labels] + 1.3 * torch.randn(400, 15)
    model = nn.Sequential(nn.Linear(15, 64), nn.ReLU(), nn.Linear(64, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    stopping = EarlyStopping(args.patience)
    for epoch in range(args.steps // 10):
        model.train()
        for picked in torch.randperm(160).split(16):
            loss = functional.cross_entropy(model(inputs[picked]), labels[picked])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            val_loss = functional.cross_entropy(model(inputs[160:]), labels[160:]).item()
        print(f"epoch {epoch} train {loss.item():.4f} validation {val_loss:.4f}")
        if stopping.is_over(val_loss, model):
            break
    model.load_state_dict(stopping.weights)
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out / "best.pt")


if __name__ == "__main__":
    main()
