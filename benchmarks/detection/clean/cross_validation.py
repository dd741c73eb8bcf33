"""Three folds, each with a new model and a new optimizer: the loss starts anew twice on purpose."""

import argparse
import csv
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


def train_fold(inputs: Tensor, labels: Tensor, *, steps: int, batch_size: int, lr: float) -> nn.Module:
    """A model of one fold."""
    model = nn.Sequential(nn.Linear(inputs.shape[1], 32), nn.Tanh(), nn.Linear(32, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    model.train()
    for _ in range(steps):
        picked = torch.randint(len(inputs), (batch_size,))
        loss = functional.cross_entropy(model(inputs[picked]), labels[picked])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def main() -> None:
    """Trains one model per fold and writes the scores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--folds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    labels = torch.randint(4, (600,))
    inputs = torch.randn(4, 10)[labels] + torch.randn(600, 10)
    folds = torch.randperm(600).chunk(args.folds)
    scores = []
    for fold, held_out in enumerate(folds):
        kept = torch.cat([part for other, part in enumerate(folds) if other != fold])
        model = train_fold(inputs[kept], labels[kept], steps=args.steps // args.folds, batch_size=32, lr=1e-2)
        model.eval()
        with torch.no_grad():
            accuracy = (model(inputs[held_out]).argmax(1) == labels[held_out]).float().mean().item()
        scores.append((fold, accuracy))
        torch.save(model.state_dict(), args.out / f"fold{fold}.pt")
    with (args.out / "scores.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("fold", "accuracy"), *scores])


if __name__ == "__main__":
    main()
