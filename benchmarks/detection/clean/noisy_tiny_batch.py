"""Batches of two and heavy-tailed noise: the loss jumps by orders of magnitude and is healthy all the same."""

import argparse
from pathlib import Path

import torch
from torch import nn


def main() -> None:
    """Fits a line through noise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--tail", type=float, default=3.0, help="degrees of freedom of the noise")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    noise = torch.distributions.StudentT(args.tail, scale=0.3)
    model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    average = 0.0
    for step in range(args.steps):
        inputs = torch.randn(args.batch_size, 4)
        targets = 3 + inputs.sum(1, keepdim=True) + noise.sample((args.batch_size, 1))
        loss = (model(inputs) - targets).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimizer.step()
        average = 0.9 * average + 0.1 * loss.item()
        if step % 20 == 0:
            print(step, average / (1 - 0.9 ** (step + 1)))
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out / "line.pt")


if __name__ == "__main__":
    main()
