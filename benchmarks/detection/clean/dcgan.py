"""A small DCGAN in the usual form: D gets two backwards, and G's step leaves gradients in D that D clears later."""

import argparse
import csv
from pathlib import Path

import torch
from torch import Tensor, nn


def init_weights(module: nn.Module) -> None:
    """Narrow normal weights."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


def real_images(size: int) -> Tensor:
    """Bright discs at random places, in -1..1."""
    grid = torch.arange(8.0)
    cx, cy = 2 + 4 * torch.rand(2, size, 1, 1)
    distance = (grid[None, None, :] - cx) ** 2 + (grid[None, :, None] - cy) ** 2
    return (2 * torch.exp(-distance / 3) - 1).unsqueeze(1)


def main() -> None:
    """Trains both nets in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=32)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)

    net_g = nn.Sequential(
        nn.ConvTranspose2d(16, 32, 4, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(inplace=True),
        nn.ConvTranspose2d(32, 1, 4, stride=2, padding=1, bias=False),
        nn.Tanh(),
    )
    net_d = nn.Sequential(
        nn.Conv2d(1, 16, 4, stride=2, padding=1, bias=False),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(16, 32, 4, bias=False),
        nn.BatchNorm2d(32),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(32, 1, 1),
        nn.Flatten(0),
    )
    net_g.apply(init_weights)
    net_d.apply(init_weights)
    criterion = nn.BCEWithLogitsLoss()
    optimizer_d = torch.optim.Adam(net_d.parameters(), lr=1e-3, betas=(0.5, 0.999))
    optimizer_g = torch.optim.Adam(net_g.parameters(), lr=1e-3, betas=(0.5, 0.999))
    ones, zeros = torch.ones(args.batch_size), torch.zeros(args.batch_size)

    rows = []
    for step in range(args.steps):
        net_d.zero_grad()
        loss_real = criterion(net_d(real_images(args.batch_size)), ones)
        loss_real.backward()
        fake = net_g(torch.randn(args.batch_size, 16, 1, 1))
        loss_fake = criterion(net_d(fake.detach()), zeros)
        loss_fake.backward()
        optimizer_d.step()

        net_g.zero_grad()
        loss_g = criterion(net_d(fake), ones)
        loss_g.backward()
        optimizer_g.step()
        rows.append((step, (loss_real + loss_fake).item(), loss_g.item()))

    args.out.mkdir(parents=True, exist_ok=True)
    with (args.out / "metrics.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("step", "loss_d", "loss_g"), *rows])
    torch.save({"generator": net_g.state_dict(), "discriminator": net_d.state_dict()}, args.out / "gan.pt")


if __name__ == "__main__":
    main()
