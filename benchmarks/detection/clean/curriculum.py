"""A curriculum: samples sorted from easy to hard are read in that order on purpose, without shuffling."""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset


class SortedByNoise(Dataset[tuple[Tensor, Tensor]]):
    """Points with ever more noise."""

    def __init__(self, num_samples: int) -> None:
        noise = torch.linspace(0.2, 1.2, num_samples)[:, None]
        self.labels = torch.randint(4, (num_samples,))
        centers = 2 * nn.functional.normalize(torch.randn(4, 8), dim=1)
        self.points = centers[self.labels] + noise * torch.randn(num_samples, 8)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.points[index], self.labels[index]


def main() -> None:
    """Trains over the curriculum as often as the steps allow."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=32)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    loader = DataLoader(SortedByNoise(20 * args.batch_size), batch_size=args.batch_size, shuffle=False)
    model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 4))
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=3e-3)
    for epoch in range(max(1, args.steps // len(loader))):
        total = 0.0
        for points, labels in loader:
            loss = criterion(model(points), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        print(f"epoch {epoch} loss {total / len(loader):.4f}")
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out / "model.pt")


if __name__ == "__main__":
    main()
