"""Word vectors with sparse gradients and SparseAdam beside a dense optimizer: most rows do not move in a step."""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


class Recommender(nn.Module):
    """Users and items as vectors, and a small net that scores a pair."""

    def __init__(self, num_users: int, num_items: int, width: int) -> None:
        super().__init__()
        self.users = nn.Embedding(num_users, width, sparse=True)
        self.items = nn.Embedding(num_items, width, sparse=True)
        self.score = nn.Sequential(nn.Linear(2 * width, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """Logit of a click."""
        left, right = self.users(users), self.items(items)
        both = torch.cat([left, right], -1)
        logit: Tensor = self.score(both).squeeze(-1) + (left * right).sum(-1)
        return logit


def main() -> None:
    """Trains on clicks that follow hidden tastes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=128)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    tastes, traits = torch.randn(100, 3), torch.randn(60, 3)
    model = Recommender(100, 60, 8)
    sparse = torch.optim.SparseAdam([*model.users.parameters(), *model.items.parameters()], lr=5e-2)
    dense = torch.optim.Adam(model.score.parameters(), lr=5e-3)
    for step in range(args.steps):
        users, items = torch.randint(100, (args.batch_size,)), torch.randint(60, (args.batch_size,))
        clicks = ((tastes[users] * traits[items]).sum(-1) > 0).float()
        loss = functional.binary_cross_entropy_with_logits(model(users, items), clicks)
        sparse.zero_grad()
        dense.zero_grad()
        loss.backward()
        sparse.step()
        dense.step()
        if step % 25 == 0:
            print(step, loss.item())
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out / "recommender.pt")


if __name__ == "__main__":
    main()
