"""A learning-rate finder: the rate rises exponentially until the loss explodes, which is the purpose."""

import argparse
import csv
from pathlib import Path

import torch
from torch import nn


def main() -> None:
    """Sweeps the rate and writes the curve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--first-lr", type=float, default=1e-4)
    parser.add_argument("--last-lr", type=float, default=10.0)
    parser.add_argument(
        "--stop-at", type=float, default=4.0, help="stop when the loss is so many times its best"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)

    centers = torch.randn(5, 12)
    model = nn.Sequential(nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 5))
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=args.first_lr, momentum=0.9)
    factor = (args.last_lr / args.first_lr) ** (1 / (args.steps - 1))
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=factor)

    curve = []
    smoothed, best = 0.0, float("inf")
    for step in range(args.steps):
        labels = torch.randint(5, (32,))
        inputs = centers[labels] + torch.randn(32, 12)
        loss = criterion(model(inputs), labels)
        smoothed = 0.9 * smoothed + 0.1 * loss.item()
        corrected = smoothed / (1 - 0.9 ** (step + 1))
        curve.append((step, scheduler.get_last_lr()[0], loss.item(), corrected))
        best = min(best, corrected)
        if corrected > args.stop_at * best:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()

    lowest = min(curve, key=lambda row: row[3])
    print(f"loss lowest at lr {lowest[1]:.2e}; suggested {lowest[1] / 10:.2e}")
    args.out.mkdir(parents=True, exist_ok=True)
    with (args.out / "lr_curve.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("step", "lr", "loss", "smoothed"), *curve])


if __name__ == "__main__":
    main()
