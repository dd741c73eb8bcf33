"""A physics-informed net in double precision: the loss holds derivatives of the net itself."""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn


def derivative(values: Tensor, at: Tensor) -> Tensor:
    """Derivative of each value at its own place."""
    found: Tensor = torch.autograd.grad(values.sum(), at, create_graph=True)[0]
    return found


def residual(net: nn.Module, time: Tensor, damping: float) -> Tensor:
    """What is left of the equation of a damped oscillator."""
    x = net(time)
    speed = derivative(x, time)
    left: Tensor = derivative(speed, time) + damping * speed + 4 * x
    return left


def main() -> None:
    """Solves an initial value problem."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--points", type=int, default=64)
    parser.add_argument("--damping", type=float, default=0.5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    torch.set_default_dtype(torch.float64)
    net = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    for step in range(args.steps):
        time = (3 * torch.rand(args.points, 1)).requires_grad_(True)
        inner = residual(net, time, args.damping).square().mean()
        start = torch.zeros(1, 1, requires_grad=True)
        x = net(start)
        initial = (x - 1).square().sum() + derivative(x, start).square().sum()
        loss = 0.1 * inner + initial
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 25 == 0:
            print(f"{step} loss {loss.item():.5f} equation {inner.item():.5f} start {initial.item():.5f}")
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(net.state_dict(), args.out / "solution.pt")


if __name__ == "__main__":
    main()
