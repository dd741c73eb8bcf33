"""StepLR once per epoch in a trainer class that writes a complete checkpoint after each epoch."""

import argparse
import csv
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


class Trainer:
    """Owns the model and all that a resume needs."""

    def __init__(
        self, model: nn.Module, loader: DataLoader[tuple[Tensor, ...]], out: Path, lr: float
    ) -> None:
        self.model = model
        self.loader = loader
        self.out = out
        self.criterion = nn.CrossEntropyLoss()
        self.optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4)
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, step_size=1, gamma=0.5)
        self.history: list[dict[str, float]] = []

    def train_epoch(self, epoch: int) -> None:
        """One pass over the data."""
        self.model.train()
        total = 0.0
        for inputs, labels in self.loader:
            self.optimizer.zero_grad()
            loss = self.criterion(self.model(inputs), labels)
            loss.backward()
            self.optimizer.step()
            total += loss.item()
        rate = float(self.scheduler.get_last_lr()[0])
        self.scheduler.step()
        self.history.append({"epoch": epoch, "loss": total / len(self.loader), "lr": rate})

    def save(self, epoch: int) -> None:
        """Everything, under the name of the epoch."""
        state = {
            "epoch": epoch,
            "global_step": (epoch + 1) * len(self.loader),
            "model_state_dict": self.model.state_dict(),
            "optimizer_state_dict": self.optimizer.state_dict(),
            "scheduler_state_dict": self.scheduler.state_dict(),
            "rng_state": torch.get_rng_state(),
        }
        torch.save(state, self.out / f"epoch{epoch}.pt")

    def write_history(self) -> None:
        """One row per epoch."""
        with (self.out / "metrics.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, ["epoch", "loss", "lr"])
            writer.writeheader()
            writer.writerows(self.history)


def main() -> None:
    """Trains on images of shapes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=0.05)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    labels = torch.randint(5, (640,))
    inputs = torch.randn(5, 24)[labels] + 1.3 * torch.randn(640, 24)
    loader = DataLoader(TensorDataset(inputs, labels), batch_size=args.batch_size, shuffle=True)
    model = nn.Sequential(nn.Linear(24, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 5))
    trainer = Trainer(model, loader, args.out, args.lr)
    for epoch in range(max(1, args.steps // len(loader))):
        trainer.train_epoch(epoch)
        trainer.save(epoch)
        trainer.write_history()


if __name__ == "__main__":
    main()
