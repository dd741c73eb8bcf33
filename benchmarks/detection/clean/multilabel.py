"""Multi-label tagging with BCEWithLogitsLoss and positive weights, and validation every few steps."""

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


def mean_f1(logits: Tensor, targets: Tensor) -> float:
    """F1 over all tags together."""
    guesses = (logits > 0).float()
    hits = (guesses * targets).sum()
    return (2 * hits / (guesses.sum() + targets.sum()).clamp_min(1)).item()


def main() -> None:
    """Trains a tagger of bags of words."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--validate-every", type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    tags = (torch.rand(800, 12) < 0.15).float()  # noqa: PLR2004 - how often a tag applies
    words = torch.poisson(0.3 + tags @ (3.0 * (torch.rand(12, 40) < 0.15)))  # noqa: PLR2004 - words per tag
    train = DataLoader(TensorDataset(words[:640], tags[:640]), args.batch_size, shuffle=True)
    model = nn.Sequential(nn.Linear(40, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 12))
    positive = tags[:640].sum(0)
    criterion = nn.BCEWithLogitsLoss(pos_weight=((640 - positive) / positive).sqrt())
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)

    step = 0
    with (args.out / "metrics.jsonl").open("w") as log:
        while step < args.steps:
            for batch, target in train:
                model.train()
                loss = criterion(model(batch), target)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
                row = {"step": step, "train/loss": loss.item()}
                if step % args.validate_every == 0:
                    model.eval()
                    with torch.no_grad():
                        logits = model(words[640:])
                    row |= {
                        "val/loss": criterion(logits, tags[640:]).item(),
                        "val/f1": mean_f1(logits, tags[640:]),
                    }
                log.write(json.dumps(row) + "\n")
                if step >= args.steps:
                    break
    torch.save(model.state_dict(), args.out / "tagger.pt")


if __name__ == "__main__":
    main()
