"""Trains from an endless IterableDataset, which has no length and no epochs."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset


class SensorStream(IterableDataset[tuple[Tensor, Tensor]]):
    """Windows of a noisy oscillation, and the value that comes next."""

    def __init__(self, seed: int, window: int) -> None:
        self.seed = seed
        self.window = window

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(self.seed)
        time = torch.arange(self.window + 1.0)
        while True:
            phase, speed = torch.rand(2, generator=generator)
            signal = torch.sin(6.28 * phase + time * (0.2 + 0.4 * speed))
            signal = signal + 0.05 * torch.randn(self.window + 1, generator=generator)
            yield signal[:-1], signal[-1:]


def main() -> None:
    """Takes as many batches from the stream as there are steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--batch-size", type=int, default=32)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    model = nn.Sequential(nn.Linear(12, 32), nn.Tanh(), nn.Linear(32, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    loader = DataLoader(SensorStream(args.seed, 12), batch_size=args.batch_size)
    for step, (window, following) in enumerate(loader, start=1):
        loss = (model(window) - following).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 20 == 0:
            print(step, loss.item())
        if step >= args.steps:
            break
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out / "forecaster.pt")


if __name__ == "__main__":
    main()
