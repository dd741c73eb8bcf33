"""Clips to a norm that is never reached: a safety net, and a logged gradient norm."""

import argparse
import csv
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional


def main() -> None:
    """Trains a classifier and logs the norms."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--max-norm", type=float, default=100.0)
    parser.add_argument("--optimizer", choices=("adam", "sgd", "asgd"), default="adam")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    centers = torch.randn(4, 10)
    model = nn.Sequential(nn.Linear(10, 40), nn.Mish(), nn.Linear(40, 40), nn.Mish(), nn.Linear(40, 4))
    optimizer: torch.optim.Optimizer
    if args.optimizer == "adam":
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, amsgrad=True)
    elif args.optimizer == "sgd":
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    else:
        optimizer = torch.optim.ASGD(model.parameters(), lr=0.1)
    rows = []
    for step in range(args.steps):
        labels = torch.randint(4, (48,))
        loss = functional.cross_entropy(model(centers[labels] + torch.randn(48, 10)), labels)
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), args.max_norm)
        optimizer.step()
        rows.append((step, loss.item(), norm.item()))
    args.out.mkdir(parents=True, exist_ok=True)
    with (args.out / "metrics.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("step", "loss", "grad_norm"), *rows])
    torch.save(model.state_dict(), args.out / "model.pt")


if __name__ == "__main__":
    main()
