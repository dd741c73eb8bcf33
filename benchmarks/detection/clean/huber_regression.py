"""Robust regression of data with outliers, by a Huber loss, with a learning rate that no scheduler changes."""

import argparse
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

LOSSES = {"huber": nn.HuberLoss(delta=1.0), "mse": nn.MSELoss(), "l1": nn.L1Loss()}


def main() -> None:
    """Fits and prints the median error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--loss", choices=sorted(LOSSES), default="huber")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    inputs = torch.rand(640, 8) * 2 - 1
    targets = 4 * inputs[:, 0] ** 2 - 2 * inputs[:, 1] + inputs[:, 2] * inputs[:, 3] + 3
    targets += 0.1 * torch.randn(640)
    if args.loss == "huber":
        targets += (torch.rand(640) < 0.03) * 5 * torch.randn(640)  # noqa: PLR2004 - the share of outliers
    loader = DataLoader(
        TensorDataset(inputs, targets[:, None]), args.batch_size, shuffle=True, drop_last=True
    )
    model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    criterion = LOSSES[args.loss]
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for epoch in range(max(1, args.steps // len(loader))):
        for batch, wanted in loader:
            loss = criterion(model(batch), wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(epoch, loss.item())
    model.eval()
    with torch.no_grad():
        print("median error", (model(inputs).squeeze(1) - targets).abs().median().item())
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out / "model.pt")


if __name__ == "__main__":
    main()
