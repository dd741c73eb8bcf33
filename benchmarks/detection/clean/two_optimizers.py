"""Two optimizers on one model, one for matrices and one for the rest, stepped together with their own schedules."""

import argparse
import json
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR


def main() -> None:
    """Trains a classifier and logs both rates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--matrix-lr", type=float, default=0.05)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    centers = torch.randn(6, 16)
    model = nn.Sequential(nn.Linear(16, 64), nn.LayerNorm(64), nn.GELU(), nn.Linear(64, 6))
    matrices = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.SGD(matrices, lr=args.matrix_lr, momentum=0.95, nesterov=True),
        torch.optim.AdamW(others, lr=3e-3, weight_decay=0.0),
    ]
    warmup, total = 5, args.steps
    schedulers = [
        LambdaLR(opt, lambda step: min((step + 1) / warmup, (total - step) / (total - warmup)))
        for opt in optimizers
    ]
    with (args.out / "metrics.jsonl").open("w") as log:
        for step in range(args.steps):
            labels = torch.randint(6, (48,))
            loss = functional.cross_entropy(model(centers[labels] + torch.randn(48, 16)), labels)
            model.zero_grad()
            loss.backward()
            rates = [scheduler.get_last_lr()[0] for scheduler in schedulers]
            for optimizer, scheduler in zip(optimizers, schedulers, strict=True):
                optimizer.step()
                scheduler.step()
            row = {"step": step, "loss": loss.item(), "lr/matrices": rates[0], "lr/others": rates[1]}
            log.write(json.dumps(row) + "\n")
    torch.save(model.state_dict(), args.out / "model.pt")


if __name__ == "__main__":
    main()
