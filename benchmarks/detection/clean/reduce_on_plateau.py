"""ReduceLROnPlateau on the validation loss: it is stepped once per epoch and may never lower the rate."""

import argparse
import json
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset


def main() -> None:
    """Trains until the epochs are over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--patience", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    inputs = torch.randn(400, 5)
    targets = inputs @ torch.randn(5, 2) + inputs[:, :2] ** 2 + 0.2 * torch.randn(400, 2)
    train = DataLoader(TensorDataset(inputs[:320], targets[:320]), batch_size=40, shuffle=True)
    valid = DataLoader(TensorDataset(inputs[320:], targets[320:]), batch_size=80)
    model = nn.Sequential(nn.Linear(5, 48), nn.ELU(), nn.Linear(48, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=args.patience)
    with (args.out / "metrics.jsonl").open("w") as log:
        for epoch in range(max(2, args.steps // len(train))):
            model.train()
            train_loss = 0.0
            for batch, wanted in train:
                optimizer.zero_grad()
                loss = functional.mse_loss(model(batch), wanted)
                loss.backward()
                optimizer.step()
                train_loss += loss.item() / len(train)
            model.eval()
            with torch.no_grad():
                valid_loss = sum(functional.mse_loss(model(b), w).item() for b, w in valid) / len(valid)
            scheduler.step(valid_loss)
            row = {"epoch": epoch, "train_loss": train_loss, "val_loss": valid_loss}
            log.write(json.dumps(row | {"lr": optimizer.param_groups[0]["lr"]}) + "\n")
    torch.save(model.state_dict(), args.out / "model.pt")


if __name__ == "__main__":
    main()
