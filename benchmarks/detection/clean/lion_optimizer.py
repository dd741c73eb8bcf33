"""An optimizer of the user's own (Lion): every number moves by the same amount in every step."""

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


class Lion(torch.optim.Optimizer):
    """Steps by the sign of a moving average."""

    def __init__(self, params: Iterable[Tensor], lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "betas": (0.9, 0.99), "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum = state["momentum"]
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(torch.sign(torch.lerp(parameter.grad, momentum, beta1)), alpha=-group["lr"])
                momentum.lerp_(parameter.grad, 1 - beta2)
        return loss


def main() -> None:
    """Trains a convolutional classifier."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--lr", type=float, default=1e-3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    motifs = torch.randn(4, 6, 9)
    model = nn.Sequential(
        nn.Conv1d(6, 24, 5), nn.ReLU(), nn.Conv1d(24, 24, 5), nn.ReLU(), nn.AdaptiveMaxPool1d(1), nn.Flatten(),
        nn.Linear(24, 4),
    )  # fmt: skip
    optimizer = Lion(model.parameters(), lr=args.lr, weight_decay=0.1)
    for step in range(args.steps):
        labels = torch.randint(4, (32,))
        signals = 0.7 * torch.randn(32, 6, 40)
        place = int(torch.randint(31, ()))
        signals[:, :, place : place + 9] += motifs[labels]
        loss = functional.cross_entropy(model(signals), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0:
            print(step, loss.item())
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out / "model.pt")


if __name__ == "__main__":
    main()
