"""Keeps the best and the last checkpoint: the best one holds older weights than the live model on purpose."""

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset


def validate(model: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    """Mean loss on the validation set."""
    model.eval()
    with torch.no_grad():
        loss = functional.cross_entropy(model(inputs), labels).item()
    model.train()
    return loss


def main() -> None:
    """Overfits a little, so that the best epoch need not be the last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--batch-size", type=int, default=16)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    labels = torch.randint(4, (320,))
    inputs = 0.8 * torch.randn(4, 20)[labels] + 1.5 * torch.randn(320, 20)
    loader = DataLoader(TensorDataset(inputs[:160], labels[:160]), batch_size=args.batch_size, shuffle=True)
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.9)
    best = float("inf")
    with (args.out / "metrics.jsonl").open("w") as log:
        for epoch in range(max(1, args.steps // len(loader))):
            losses = []
            for batch, target in loader:
                loss = functional.cross_entropy(model(batch), target)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
            scheduler.step()
            val_loss = validate(model, inputs[160:], labels[160:])
            log.write(
                json.dumps({"epoch": epoch, "loss": sum(losses) / len(losses), "val_loss": val_loss}) + "\n"
            )
            is_best = val_loss < best
            best = min(best, val_loss)
            state = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "scheduler": scheduler.state_dict(),
                "epoch": epoch,
                "best_val_loss": best,
                "rng": torch.get_rng_state(),
            }
            torch.save(state, args.out / "last.pt")
            if is_best:
                torch.save(model.state_dict(), args.out / "best.pt")


if __name__ == "__main__":
    main()
