"""OneCycleLR, stepped once per batch: the rate rises and then falls far below where it began."""

import argparse
import csv
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def main() -> None:
    """Trains, and logs the loss and the rate of every step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-lr", type=float, default=0.1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    labels = torch.randint(8, (640,))
    images = torch.randn(8, 1, 8, 8)[labels] + 2 * torch.randn(640, 1, 8, 8)
    loader = DataLoader(TensorDataset(images, labels), batch_size=args.batch_size, shuffle=True)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 8)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    epochs = max(1, args.steps // len(loader))
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=args.max_lr, epochs=epochs, steps_per_epoch=len(loader)
    )
    criterion = nn.CrossEntropyLoss()
    rows: list[tuple[int, float, float]] = []
    for _ in range(epochs):
        for batch, target in loader:
            rate = float(scheduler.get_last_lr()[0])
            loss = criterion(model(batch), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            rows.append((len(rows), loss.item(), rate))
    args.out.mkdir(parents=True, exist_ok=True)
    with (args.out / "metrics.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("step", "loss", "lr"), *rows])
    torch.save(model.state_dict(), args.out / "model.pt")


if __name__ == "__main__":
    main()
