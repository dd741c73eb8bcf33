"""Metric learning with a triplet loss: batches of a few samples of each of several classes, chosen by hand."""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


def sample_triplets(labels: Tensor, num_triplets: int) -> tuple[Tensor, Tensor, Tensor]:
    """Indices of anchors, of others of their class, and of samples of another class."""
    anchors = torch.randint(len(labels), (num_triplets,))
    same = labels[anchors, None] == labels[None]
    positives = torch.multinomial(same.float(), 1).squeeze(1)
    negatives = torch.multinomial((~same).float(), 1).squeeze(1)
    return anchors, positives, negatives


def main() -> None:
    """Trains an embedding."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--margin", type=float, default=0.5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    labels = torch.randint(8, (400,))
    samples = torch.cat(
        [torch.randn(8, 6)[labels] + 0.5 * torch.randn(400, 6), 1.5 * torch.randn(400, 18)], 1
    )
    samples = samples @ torch.linalg.qr(torch.randn(24, 24)).Q
    net = nn.Sequential(nn.Linear(24, 64), nn.ReLU(), nn.Linear(64, 8))
    criterion = nn.TripletMarginLoss(margin=args.margin)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for step in range(args.steps):
        anchors, positives, negatives = sample_triplets(labels, args.batch_size)
        vectors = functional.normalize(net(samples[torch.cat([anchors, positives, negatives])]), dim=1)
        loss = criterion(*vectors.chunk(3))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0:
            print(step, loss.item())
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(net.state_dict(), args.out / "embedding.pt")


if __name__ == "__main__":
    main()
