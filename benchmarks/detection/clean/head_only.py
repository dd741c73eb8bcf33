"""A linear probe: the optimizer holds the head alone, as the backbone is not to be trained."""

import argparse
import csv
import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


class Probe(nn.Module):
    """A backbone that is given, and a head to be learned."""

    def __init__(self, num_classes: int, *, is_graph_kept: bool) -> None:
        super().__init__()
        self.is_graph_kept = is_graph_kept
        self.backbone = nn.Sequential(nn.Linear(20, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU())
        self.head = nn.Linear(64, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Scores of the classes."""
        with torch.set_grad_enabled(self.is_graph_kept and torch.is_grad_enabled()):
            features = self.backbone(inputs)
        logits: Tensor = self.head(features)
        return logits


def main() -> None:
    """Trains the head on blobs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--features", choices=("no_grad", "graph"), default="no_grad")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)

    centers = torch.randn(6, 20)
    labels = torch.randint(6, (960,))
    inputs = centers[labels] + 0.7 * torch.randn(960, 20)
    model = Probe(6, is_graph_kept=args.features == "graph")
    optimizer = torch.optim.SGD(model.head.parameters(), lr=0.5, momentum=0.9)

    rows = []
    batches_per_epoch = len(inputs) // 48
    for epoch in range(math.ceil(args.steps / batches_per_epoch)):
        total = 0.0
        for picked in torch.randperm(len(inputs)).split(48):
            loss = functional.cross_entropy(model(inputs[picked]), labels[picked])
            # The gradients of the backbone are of no use, so the whole model is cleared.
            model.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        rows.append({"epoch": epoch, "loss": total / batches_per_epoch})

    args.out.mkdir(parents=True, exist_ok=True)
    with (args.out / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=["epoch", "loss"])
        writer.writeheader()
        writer.writerows(rows)
    torch.save(model.head.state_dict(), args.out / "head.pt")


if __name__ == "__main__":
    main()
