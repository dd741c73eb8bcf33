"""A mixture of experts with top-1 routing: an expert that no sample chose has no gradient in that step."""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


class MixtureOfExperts(nn.Module):
    """A router and its experts."""

    def __init__(self, width: int, num_experts: int) -> None:
        super().__init__()
        self.router = nn.Linear(width, num_experts)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
            for _ in range(num_experts)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the chosen experts add, scaled by the router, and the balance loss."""
        probabilities = self.router(x).softmax(-1)
        gate, chosen = probabilities.max(-1)
        added = torch.zeros_like(x)
        for index, expert in enumerate(self.experts):
            rows = (chosen == index).nonzero().squeeze(1)
            if len(rows):
                added = added.index_add(0, rows, gate[rows, None] * expert(x[rows]))
        share = functional.one_hot(chosen, len(self.experts)).float().mean(0)
        return x + added, len(self.experts) * (share * probabilities.mean(0)).sum()


class Model(nn.Module):
    """Embedding of the inputs, one layer of experts, and a head."""

    def __init__(self, num_experts: int) -> None:
        super().__init__()
        self.inputs = nn.Linear(10, 24)
        self.experts = MixtureOfExperts(24, num_experts)
        self.head = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Predictions and balance loss."""
        hidden, balance = self.experts(self.inputs(x))
        return self.head(hidden), balance


def main() -> None:
    """Fits a function that differs between regions of the input."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--experts", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=32)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    maps = torch.randn(4, 10, 4) / 3
    model = Model(args.experts)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for step in range(args.steps):
        x = torch.randn(args.batch_size, 10)
        region = (x[:, 0] > 0).long() + 2 * (x[:, 1] > 0).long()
        y = torch.einsum("bi,bio->bo", x, maps[region])
        predicted, balance = model(x)
        loss = functional.mse_loss(predicted, y) + 0.1 * balance
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0:
            print(step, loss.item(), balance.item())
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out / "moe.pt")


if __name__ == "__main__":
    main()
