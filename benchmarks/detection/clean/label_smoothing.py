"""A convolutional classifier with label smoothing, whose loss has a floor far above zero."""

import argparse
import csv
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, random_split


def make_digits(num_images: int) -> tuple[Tensor, Tensor]:
    """Ten blocky glyphs with noise and random shifts."""
    glyphs = torch.nn.functional.interpolate((torch.rand(10, 1, 5, 5) > 0.5).float(), scale_factor=2)  # noqa: PLR2004
    labels = torch.randint(10, (num_images,))
    images = glyphs[labels] + 0.3 * torch.randn(num_images, 1, 10, 10)
    shifts = torch.randint(-1, 2, (num_images,)).tolist()
    return torch.stack(
        [image.roll(shift, dims=2) for image, shift in zip(images, shifts, strict=True)]
    ), labels


def evaluate(model: nn.Module, loader: DataLoader[tuple[Tensor, ...]]) -> tuple[float, float]:
    """Mean loss without smoothing, and accuracy."""
    criterion = nn.CrossEntropyLoss(reduction="sum")
    model.eval()
    loss, correct, count = 0.0, 0, 0
    with torch.no_grad():
        for images, labels in loader:
            logits = model(images)
            loss += criterion(logits, labels).item()
            correct += int((logits.argmax(1) == labels).sum())
            count += len(labels)
    model.train()
    return loss / count, correct / count


def main() -> None:
    """Trains for whole epochs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--smoothing", type=float, default=0.1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)

    train_set, val_set = random_split(TensorDataset(*make_digits(800)), [640, 160])
    train_loader = DataLoader(train_set, args.batch_size, shuffle=True)
    val_loader = DataLoader(val_set, 80)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.25),
        nn.Linear(16 * 25, 10),
    )
    criterion = nn.CrossEntropyLoss(label_smoothing=args.smoothing)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)

    rows = []
    for epoch in range(max(1, args.steps // len(train_loader))):
        total = 0.0
        for images, labels in train_loader:
            optimizer.zero_grad()
            loss = criterion(model(images), labels)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(labels)
        val_loss, accuracy = evaluate(model, val_loader)
        rows.append((epoch, total / len(train_set), val_loss, accuracy))
        print(rows[-1])

    args.out.mkdir(parents=True, exist_ok=True)
    with (args.out / "metrics.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("epoch", "train_loss", "val_loss", "val_accuracy"), *rows])
    torch.save(model.state_dict(), args.out / "model.pt")


if __name__ == "__main__":
    main()
