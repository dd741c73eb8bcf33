"""Counts by a Poisson loss, or a mean and its spread by a Gaussian one: both may be far from any chance level."""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


def compute_loss(kind: str, outputs: Tensor, targets: Tensor) -> Tensor:
    """The loss of either kind of model."""
    if kind == "poisson":
        return functional.poisson_nll_loss(outputs[:, 0], targets, log_input=True)
    return functional.gaussian_nll_loss(outputs[:, 0], targets, functional.softplus(outputs[:, 1]) + 1e-3)


def main() -> None:
    """Fits rates of events."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--kind", choices=("poisson", "gaussian"), default="poisson")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    effects = 0.5 * torch.randn(8)
    num_outputs = 1 if args.kind == "poisson" else 2
    model = nn.Sequential(nn.Linear(8, 32), nn.Softplus(), nn.Linear(32, num_outputs))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(args.steps):
        inputs = torch.randn(64, 8)
        counts = torch.poisson((1 + inputs @ effects).clamp(max=3).exp())
        targets = counts if args.kind == "poisson" else counts.add(1).log()
        loss = compute_loss(args.kind, model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        if step % 20 == 0:
            print(step, loss.item())
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out / "rates.pt")


if __name__ == "__main__":
    main()
