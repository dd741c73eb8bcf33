"""Binary cross-entropy on the sigmoid that the model ends with: probabilities are right for BCELoss."""

import argparse
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def main() -> None:
    """Tells two rings apart."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--optimizer", choices=("adam", "adamax"), default="adam")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    labels = torch.randint(2, (640, 1)).float()
    angle = 2 * torch.pi * torch.rand(640, 1)
    radius = 1 + labels + 0.2 * torch.randn(640, 1)
    points = torch.cat([radius * angle.cos(), radius * angle.sin()], 1)
    loader = DataLoader(TensorDataset(points, labels), batch_size=args.batch_size, shuffle=True)

    model = nn.Sequential(
        nn.Linear(2, 32),
        nn.BatchNorm1d(32),
        nn.ReLU(),
        nn.Linear(32, 16),
        nn.ReLU(),
        nn.Linear(16, 1),
        nn.Sigmoid(),
    )
    criterion = nn.BCELoss()
    kind = {"adam": torch.optim.Adam, "adamax": torch.optim.Adamax}[args.optimizer]
    optimizer = kind(model.parameters(), lr=1e-2)
    losses: list[float] = []
    while len(losses) < args.steps:
        for batch, target in loader:
            optimizer.zero_grad()
            loss = criterion(model(batch), target)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if len(losses) >= args.steps:
                break
    print(f"first ten {sum(losses[:10]) / 10:.4f}, last ten {sum(losses[-10:]) / 10:.4f}")
    model.eval()
    with torch.no_grad():
        print("training accuracy", ((model(points) > 0.5).float() == labels).float().mean().item())  # noqa: PLR2004
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out / "model.pt")


if __name__ == "__main__":
    main()
