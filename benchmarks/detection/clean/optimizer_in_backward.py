"""One optimizer per parameter, stepped by a hook as soon as its gradient is there, to save memory."""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


def attach_optimizers(model: nn.Module, lr: float) -> dict[nn.Parameter, torch.optim.Optimizer]:
    """Gives each parameter an optimizer that steps and clears in the backward."""
    optimizers: dict[nn.Parameter, torch.optim.Optimizer] = {
        p: torch.optim.Adam([p], lr=lr) for p in model.parameters()
    }

    def step(parameter: Tensor) -> None:
        optimizer = optimizers[parameter]  # type: ignore[index]
        optimizer.step()
        optimizer.zero_grad()

    for parameter in optimizers:
        parameter.register_post_accumulate_grad_hook(step)
    return optimizers


def main() -> None:
    """Trains a classifier without a call of step in the loop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--lr", type=float, default=3e-3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    centers = torch.randn(5, 16)
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5))
    attach_optimizers(model, args.lr)
    for step in range(args.steps):
        labels = torch.randint(5, (48,))
        loss = functional.cross_entropy(model(centers[labels] + torch.randn(48, 16)), labels)
        loss.backward()
        if step % 20 == 0:
            print(step, loss.item())
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out / "model.pt")


if __name__ == "__main__":
    main()
