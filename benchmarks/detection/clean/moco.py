"""Momentum contrast: a slow copy encodes the keys, and negatives come from a queue of keys of earlier steps."""

import argparse
import copy
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


class MoCo(nn.Module):
    """Query encoder, key encoder and queue, all in one module."""

    def __init__(self, width: int, queue_size: int, momentum: float) -> None:
        super().__init__()
        self.query = nn.Sequential(nn.Linear(24, 64), nn.ReLU(), nn.Linear(64, width))
        self.key = copy.deepcopy(self.query)
        for parameter in self.key.parameters():
            parameter.requires_grad = False
        self.momentum = momentum
        self.queue: Tensor
        self.register_buffer("queue", functional.normalize(torch.randn(queue_size, width), dim=1))

    @torch.no_grad()
    def encode_keys(self, views: Tensor) -> Tensor:
        """Moves the key encoder a little, and encodes with it."""
        for slow, fast in zip(self.key.parameters(), self.query.parameters(), strict=True):
            slow.data.mul_(self.momentum).add_(fast.data, alpha=1 - self.momentum)
        return functional.normalize(self.key(views), dim=1)

    def forward(self, one: Tensor, two: Tensor) -> tuple[Tensor, Tensor]:
        """Logits with the right key first, and the new keys."""
        queries = functional.normalize(self.query(one), dim=1)
        keys = self.encode_keys(two)
        right = (queries * keys).sum(1, keepdim=True)
        wrong = queries @ self.queue.clone().T
        return torch.cat([right, wrong], 1) / 0.2, keys

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Puts keys in front of the queue and drops the oldest."""
        self.queue.copy_(torch.cat([keys, self.queue[: -len(keys)]]))


def main() -> None:
    """Trains on noisy views of a few hundred things."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--queue", type=int, default=128)
    parser.add_argument("--momentum", type=float, default=0.9)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    things = torch.randn(500, 24)
    model = MoCo(16, args.queue, args.momentum)
    optimizer = torch.optim.SGD(model.query.parameters(), lr=0.3, momentum=0.9, weight_decay=1e-4)
    for step in range(args.steps):
        picked = things[torch.randint(500, (32,))]
        logits, keys = model(picked + 0.3 * torch.randn(32, 24), picked + 0.3 * torch.randn(32, 24))
        loss = functional.cross_entropy(logits, torch.zeros(32, dtype=torch.long))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.enqueue(keys)
        if step % 20 == 0:
            print(step, loss.item())
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out / "moco.pt")


if __name__ == "__main__":
    main()
