"""Fraud detection with one positive in fifty: a loss far below ln 2, and batches that may hold no positive."""

import argparse
import json
import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


def average_precision(scores: Tensor, labels: Tensor) -> float:
    """Area under precision and recall."""
    hits = labels[scores.argsort(descending=True)]
    precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1)
    return ((precision * hits).sum() / hits.sum().clamp_min(1)).item()


def main() -> None:
    """Trains with a bias that starts at the log-odds of the base rate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--prior", type=int, choices=(0, 1), default=0, help="start from the base rate")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    labels = (torch.rand(5000) < 0.02).float()  # noqa: PLR2004 - one in fifty
    inputs = torch.randn(5000, 12) + 2.5 * labels[:, None] * torch.randn(12)
    loader = DataLoader(TensorDataset(inputs[:4000], labels[:4000]), batch_size=args.batch_size, shuffle=True)
    model = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 1), nn.Flatten(0))
    if args.prior:
        nn.init.constant_(model[2].get_parameter("bias"), math.log(0.02 / 0.98))
    criterion = nn.BCEWithLogitsLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    step = 0
    while step < args.steps:
        for batch, target in loader:
            loss = criterion(model(batch), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            if step == args.steps:
                break
    model.eval()
    with torch.no_grad():
        precision = average_precision(model(inputs[4000:]), labels[4000:])
    (args.out / "result.json").write_text(json.dumps({"steps": step, "average_precision": precision}))
    torch.save(model.state_dict(), args.out / "model.pt")


if __name__ == "__main__":
    main()
