"""LBFGS with a closure that it calls many times a step, on one full batch in double precision."""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn


def main() -> None:
    """Fits a wavy curve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--line-search", choices=("none", "strong_wolfe"), default="strong_wolfe")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    x = torch.linspace(-2, 2, 200, dtype=torch.float64)[:, None]
    y = torch.sin(3 * x) * torch.exp(-(x**2) / 4) + 0.02 * torch.randn_like(x)
    model = nn.Sequential(
        nn.Linear(1, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 1)
    ).double()
    criterion = nn.MSELoss()
    optimizer = torch.optim.LBFGS(
        model.parameters(),
        lr=1.0 if args.line_search == "strong_wolfe" else 0.1,
        max_iter=5,
        line_search_fn=None if args.line_search == "none" else args.line_search,
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = criterion(model(x), y)
        loss.backward()
        return loss

    for step in range(args.steps):
        loss = optimizer.step(closure)
        if step % 5 == 0:
            print(step, loss.item())
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out / "curve.pt")


if __name__ == "__main__":
    main()
