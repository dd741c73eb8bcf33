"""Trains halfway, saves all of the state, and goes on from the file with new objects, exactly where it was."""

import argparse
import csv
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass
class Training:
    """All that changes while training."""

    data: tuple[Tensor, Tensor]
    batch_size: int
    total: int
    step: int = 0
    order: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    rows: list[tuple[int, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.model = nn.Sequential(nn.Linear(12, 48), nn.ReLU(), nn.Dropout(0.1), nn.Linear(48, 5))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=5e-3)
        self.scheduler = torch.optim.lr_scheduler.LinearLR(self.optimizer, 1.0, 0.1, total_iters=self.total)

    def next_batch(self) -> tuple[Tensor, Tensor]:
        """The next samples of the epoch; a new order when it is over."""
        if len(self.order) < self.batch_size:
            self.order = torch.randperm(len(self.data[0]))
        picked, self.order = self.order[: self.batch_size], self.order[self.batch_size :]
        return self.data[0][picked], self.data[1][picked]

    def run_until(self, last: int) -> None:
        """Trains up to a step."""
        while self.step < last:
            inputs, labels = self.next_batch()
            loss = functional.cross_entropy(self.model(inputs), labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.scheduler.step()
            self.rows.append((self.step, loss.item()))
            self.step += 1

    def save(self, path: Path) -> None:
        """Writes everything."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "step": self.step,
            "order": self.order,
            "rows": self.rows,
            "rng": torch.get_rng_state(),
        }
        torch.save(state, path)

    def load(self, path: Path) -> None:
        """Reads everything."""
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.step, self.order, self.rows = state["step"], state["order"], state["rows"]
        torch.set_rng_state(state["rng"])


def main() -> None:
    """Trains with a break in the middle."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--resume", type=Path, help="a checkpoint to go on from, instead of the break")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    labels = torch.randint(5, (640,))
    data = (torch.randn(5, 12)[labels] + torch.randn(640, 12), labels)
    checkpoint = args.resume or args.out / "checkpoint.pt"
    if args.resume is None:
        first = Training(data, args.batch_size, args.steps)
        first.run_until(args.steps // 2)
        first.save(checkpoint)
    second = Training(data, args.batch_size, args.steps)
    second.load(checkpoint)
    second.run_until(args.steps)
    second.save(args.out / "checkpoint.pt")
    with (args.out / "metrics.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("step", "loss"), *second.rows])


if __name__ == "__main__":
    main()
