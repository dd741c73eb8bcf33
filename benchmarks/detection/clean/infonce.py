"""Contrastive learning with in-batch negatives and a temperature (SimCLR): samples of a batch see each other."""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


class Encoder(nn.Module):
    """Encoder and projection head."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(32, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.projection = nn.Linear(width, 16)

    def forward(self, views: Tensor) -> Tensor:
        """Unit vectors."""
        return functional.normalize(self.projection(self.backbone(views)), dim=-1)


def nt_xent(one: Tensor, two: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of each view's partner among all other views of the batch."""
    both = torch.cat([one, two])
    similarity = both @ both.T / temperature
    similarity.fill_diagonal_(-1e9)
    size = len(one)
    partner = torch.cat([torch.arange(size, 2 * size), torch.arange(size)])
    return functional.cross_entropy(similarity, partner)


def main() -> None:
    """Trains on pairs of views."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=48)
    parser.add_argument("--temperature", type=float, default=0.2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    things = torch.randn(400, 8) @ torch.randn(8, 32) / 2
    encoder = Encoder()
    optimizer = torch.optim.Adam(encoder.parameters(), lr=2e-3, weight_decay=1e-6)
    for step in range(1, args.steps + 1):
        picked = things[torch.randperm(len(things))[: args.batch_size]]
        one, two = (picked + 0.5 * torch.randn_like(picked) for _ in range(2))
        loss = nt_xent(encoder(one), encoder(two), args.temperature)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 15 == 0:
            print(f"step {step} loss {loss.item():.4f}")
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(encoder.backbone.state_dict(), args.out / "backbone.pt")


if __name__ == "__main__":
    main()
