"""Augments in the worker processes of a DataLoader, each with a random stream of its own."""

import argparse
import random
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset


class Augmented(Dataset[tuple[Tensor, int]]):
    """Images that are flipped and shifted anew each time."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images = images
        self.labels = labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.images[index]
        if random.random() < 0.5:  # noqa: S311, PLR2004 - a coin
            image = image.flip(-1)
        shift = int(torch.randint(-1, 2, ()))
        return image.roll(shift, dims=-1) + 0.3 * torch.randn_like(image), int(self.labels[index])


def main() -> None:
    """Trains for whole epochs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    random.seed(args.seed)
    labels = torch.randint(4, (320,))
    images = torch.randn(4, 1, 8, 8)[labels]
    loader = DataLoader(
        Augmented(images, labels),
        batch_size=32,
        shuffle=True,
        num_workers=args.workers,
        persistent_workers=args.workers > 0,
    )
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 4)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for epoch in range(max(1, args.steps // len(loader))):
        total = 0.0
        for batch, target in loader:
            loss = functional.cross_entropy(model(batch), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        print(epoch, total / len(loader))
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out / "model.pt")


if __name__ == "__main__":
    main()
