"""Meta-learning (MAML): an inner step on copies of the weights through autograd.grad, an outer step on the start."""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional


def sample_sine(size: int) -> tuple[Tensor, Tensor]:
    """Points of one random sine wave; the first half is for the inner step."""
    amplitude, phase = 1 + 2 * torch.rand(()), 3 * torch.rand(())
    x = 6 * torch.rand(size, 1) - 3
    return x, amplitude * torch.sin(x + phase)


def main() -> None:
    """Trains a start from which one step is enough."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--inner-lr", type=float, default=0.02)
    parser.add_argument("--second-order", type=int, choices=(0, 1), default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    net = nn.Sequential(nn.Linear(1, 40), nn.Tanh(), nn.Linear(40, 40), nn.Tanh(), nn.Linear(40, 1))
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    for step in range(args.steps):
        losses = []
        for _ in range(args.tasks):
            x, y = sample_sine(20)
            weights = dict(net.named_parameters())
            inner = functional.mse_loss(net(x[:10]), y[:10])
            gradients = torch.autograd.grad(
                inner, list(weights.values()), create_graph=bool(args.second_order)
            )
            adapted = {
                name: weight - args.inner_lr * gradient
                for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
            }
            losses.append(functional.mse_loss(functional_call(net, adapted, (x[10:],)), y[10:]))
        loss = torch.stack(losses).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 15 == 0:
            print(step, loss.item())
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(net.state_dict(), args.out / "start.pt")


if __name__ == "__main__":
    main()
