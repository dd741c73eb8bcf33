"""Low-rank adapters beside frozen weights; the second factor starts at zero on purpose."""

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


class LoRALinear(nn.Module):
    """A frozen linear map plus a trained one of low rank."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.base = base
        self.base.requires_grad_(False)
        self.down = nn.Parameter(torch.empty(rank, base.in_features))
        self.up = nn.Parameter(torch.zeros(base.out_features, rank))
        self.scale = alpha / rank
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, inputs: Tensor) -> Tensor:
        """The sum of both maps."""
        adapted: Tensor = self.base(inputs) + self.scale * (inputs @ self.down.T @ self.up.T)
        return adapted


def pretrain(inputs: Tensor, targets: Tensor) -> tuple[nn.Linear, nn.Linear]:
    """The layers of a base model, the last one solved in closed form."""
    first, last = nn.Linear(12, 64), nn.Linear(64, 3)
    with torch.no_grad():
        hidden = torch.tanh(first(inputs))
        last.weight.copy_(torch.linalg.lstsq(hidden, targets).solution.T)
        last.bias.zero_()
    return first, last


def main() -> None:
    """Adapts the base model to a shifted task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--accumulate", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)

    inputs = torch.randn(800, 12)
    old, shift = torch.randn(12, 3), torch.randn(12, 3)
    first, last = pretrain(inputs, torch.tanh(inputs @ old))
    targets = torch.tanh(inputs @ (old + shift))
    model = nn.Sequential(LoRALinear(first, args.rank, 8), nn.Tanh(), LoRALinear(last, args.rank, 8))
    adapters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    print(
        f"{sum(p.numel() for p in adapters.values())} of {sum(p.numel() for p in model.parameters())} trained"
    )

    optimizer = torch.optim.AdamW(adapters.values(), lr=1e-2)
    size = 32 // args.accumulate
    for step in range(args.steps):
        optimizer.zero_grad()
        for _ in range(args.accumulate):
            picked = torch.randint(len(inputs), (size,))
            loss = functional.mse_loss(model(inputs[picked]), targets[picked]) / args.accumulate
            loss.backward()
        optimizer.step()
        if step % 20 == 0:
            print(step, loss.item() * args.accumulate)
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save({name: p.detach() for name, p in adapters.items()}, args.out / "adapter.pt")


if __name__ == "__main__":
    main()
