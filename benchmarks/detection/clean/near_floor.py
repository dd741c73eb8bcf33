"""Goes on training a model that is done: the loss starts at its floor and cannot fall much."""

import argparse
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional


def main() -> None:
    """A linear model from its closed solution, on fresh noisy samples with a small rate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--noise", type=float, default=0.3)
    parser.add_argument("--lr", type=float, default=1e-3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    truth = torch.randn(10, 2)
    sample = torch.randn(300, 10)
    answers = sample @ truth + args.noise * torch.randn(300, 2)
    model = nn.Linear(10, 2)
    with torch.no_grad():
        model.weight.copy_(torch.linalg.lstsq(sample, answers).solution.T)
        model.bias.zero_()
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
    for step in range(args.steps):
        inputs = torch.randn(64, 10)
        loss = functional.mse_loss(model(inputs), inputs @ truth + args.noise * torch.randn(64, 2))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0:
            print(step, loss.item(), "floor", args.noise**2)
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out / "model.pt")


if __name__ == "__main__":
    main()
