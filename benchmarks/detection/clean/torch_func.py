"""Gradients by torch.func, written into the parameters for an ordinary optimizer: no backward is called at all."""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value
from torch.nn import functional


def main() -> None:
    """Trains a classifier."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--lr", type=float, default=3e-3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    centers = torch.randn(5, 12)
    model = nn.Sequential(nn.Linear(12, 48), nn.ReLU(), nn.Linear(48, 5))
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr)

    def compute_loss(weights: dict[str, Tensor], inputs: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(functional_call(model, weights, (inputs,)), labels)

    for step in range(args.steps):
        labels = torch.randint(5, (32,))
        inputs = centers[labels] + torch.randn(32, 12)
        weights = {name: p.detach() for name, p in model.named_parameters()}
        gradients, loss = grad_and_value(compute_loss)(weights, inputs, labels)
        for name, parameter in model.named_parameters():
            parameter.grad = gradients[name]
        optimizer.step()
        if step % 20 == 0:
            print(step, loss.item())
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out / "model.pt")


if __name__ == "__main__":
    main()
