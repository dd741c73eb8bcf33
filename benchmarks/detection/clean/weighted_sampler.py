"""Rare classes drawn more often with a WeightedRandomSampler, with replacement: an epoch does not cover the set."""

import argparse
import json
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler


def main() -> None:
    """Trains on balanced draws of an unbalanced set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=32)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)

    labels = torch.multinomial(torch.tensor([0.7, 0.2, 0.06, 0.04]), 640, replacement=True)
    inputs = 1.2 * torch.randn(4, 16)[labels] + torch.randn(640, 16)
    per_sample = 1.0 / labels.bincount(minlength=4)[labels].double()
    sampler = WeightedRandomSampler(per_sample.tolist(), num_samples=len(labels), replacement=True)
    loader = DataLoader(TensorDataset(inputs, labels), batch_size=args.batch_size, sampler=sampler)

    model = nn.Sequential(nn.Linear(16, 48), nn.LayerNorm(48), nn.GELU(), nn.Linear(48, 4))
    optimizer = torch.optim.NAdam(model.parameters(), lr=3e-3)
    with (args.out / "metrics.jsonl").open("w") as log:
        step, running = 0, 0.0
        while step < args.steps:
            for batch, target in loader:
                loss = functional.cross_entropy(model(batch), target)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
                running += loss.item()
                if step % 10 == 0:
                    log.write(json.dumps({"step": step, "loss": running / 10}) + "\n")
                    running = 0.0
                if step == args.steps:
                    break
    torch.save(model.state_dict(), args.out / "model.pt")


if __name__ == "__main__":
    main()
