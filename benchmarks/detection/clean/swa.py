"""Stochastic weight averaging in the second half, with its own rate and batch norm statistics made anew at the end."""

import argparse
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import SWALR, AveragedModel, update_bn
from torch.utils.data import DataLoader, TensorDataset


def main() -> None:
    """Trains and saves the averaged model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--batch-size", type=int, default=64)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    labels = torch.randint(4, (640,))
    points = torch.randn(4, 10)[labels] + torch.randn(640, 10)
    loader = DataLoader(TensorDataset(points, labels), batch_size=args.batch_size, shuffle=True)
    model = nn.Sequential(nn.Linear(10, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Linear(48, 4))
    averaged = AveragedModel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    epochs = max(4, args.steps // len(loader))
    swa_start = epochs // 2
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    swa_scheduler = SWALR(optimizer, swa_lr=0.03, anneal_epochs=2)
    for epoch in range(epochs):
        for batch, target in loader:
            loss = functional.cross_entropy(model(batch), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if epoch >= swa_start:
            averaged.update_parameters(model)
            swa_scheduler.step()
        else:
            scheduler.step()
        print(epoch, loss.item(), optimizer.param_groups[0]["lr"])
    update_bn(loader, averaged)
    averaged.eval()
    with torch.no_grad():
        print(
            "training accuracy of the average", (averaged(points).argmax(1) == labels).float().mean().item()
        )
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(averaged.module.state_dict(), args.out / "swa.pt")


if __name__ == "__main__":
    main()
