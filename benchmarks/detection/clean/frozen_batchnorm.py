"""Trains a small residual net whose batch norms stay in eval mode on purpose, as in detection fine-tuning."""

import argparse
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn


class ResidualNet(nn.Module):
    """Three convolutions with norms whose statistics come from pretraining."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, 5)

    def train(self, mode: bool = True) -> Self:  # noqa: FBT001, FBT002 - the signature of torch
        """Train mode for all but the norms."""
        super().train(mode)
        self.norm1.eval()
        self.norm2.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Scores of five classes."""
        x = torch.relu(self.norm1(self.stem(images)))
        x = torch.relu(x + self.norm2(self.conv(x)))
        logits: Tensor = self.head(x.mean(dim=(2, 3)))
        return logits


def make_batch(size: int, prototypes: Tensor) -> tuple[Tensor, Tensor]:
    """Noisy copies of one color patch per class."""
    labels = torch.randint(len(prototypes), (size,))
    return prototypes[labels] + 2.0 * torch.randn(size, 3, 8, 8), labels


def main() -> None:
    """Trains and checks on fresh images."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--affine", choices=("trained", "frozen"), default="trained")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)

    prototypes = 0.4 * torch.randn(5, 3, 1, 1).expand(5, 3, 8, 8)
    model = ResidualNet(width=24)
    if args.affine == "frozen":
        for norm in (model.norm1, model.norm2):
            norm.requires_grad_(False)
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trainable, lr=0.05, momentum=0.9, nesterov=True)
    criterion = nn.CrossEntropyLoss()

    model.train()
    for step in range(args.steps):
        images, labels = make_batch(args.batch_size, prototypes)
        loss = criterion(model(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step % 20 == 0:
            print(step, loss.item())

    model.eval()
    with torch.no_grad():
        images, labels = make_batch(200, prototypes)
        accuracy = (model(images).argmax(1) == labels).float().mean().item()
    print("accuracy", accuracy)
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save({"model": model.state_dict(), "accuracy": accuracy}, args.out / "model.pt")


if __name__ == "__main__":
    main()
