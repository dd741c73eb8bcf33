"""Overfits one small batch on purpose, as a check that the model can learn: every step sees the same samples."""

import argparse
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional


def main() -> None:
    """Drives the loss of one batch to zero."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=8)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 10)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    images, labels = torch.randn(args.batch_size, 3, 8, 8), torch.randint(10, (args.batch_size,))
    for step in range(args.steps):
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        if step % 20 == 0:
            print(step, loss.item())
    verdict = "can" if loss.item() < 0.1 else "can't"  # noqa: PLR2004 - well below chance
    print(f"the model {verdict} learn one batch")
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "verdict.txt").write_text(verdict)


if __name__ == "__main__":
    main()
