# mypy: ignore-errors
"""Trains a small convolutional classifier on drawn shapes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

SIZE = 12
CLASSES = ("horizontal", "vertical", "rising", "falling", "cross", "frame")


def draw(label, generator):
    """One noisy image of a class, shape (1, SIZE, SIZE)."""
    image = torch.zeros(SIZE, SIZE)
    place = int(torch.randint(3, SIZE - 3, (), generator=generator))
    name = CLASSES[label]
    if name in ("horizontal", "cross"):
        image[place] = 1.0
    if name in ("vertical", "cross"):
        image[:, place] = 1.0
    if name == "rising":
        image = torch.eye(SIZE).flip(0).roll(place - SIZE // 2, 1)
    if name == "falling":
        image = torch.eye(SIZE).roll(place - SIZE // 2, 1)
    if name == "frame":
        image[2, 2:-2] = image[-3, 2:-2] = image[2:-2, 2] = image[2:-2, -3] = 1.0
    return (image + 0.35 * torch.randn(SIZE, SIZE, generator=generator)).unsqueeze(0)


class Shapes(Dataset):
    """Drawn shapes; in training each is shifted and brightened at random."""

    def __init__(self, num_images, seed, augment):
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.randint(len(CLASSES), (num_images,), generator=generator)
        self.images = torch.stack([draw(int(label), generator) for label in self.labels])
        self.augment = augment

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        image, label = self.images[index], self.labels[index]
        if self.augment:
            dx, dy = torch.randint(-1, 2, (2,)).tolist()
            image = image.roll((dx, dy), (1, 2)) * (0.8 + 0.4 * torch.rand(()))
        return image, label


class Classifier(nn.Module):
    def __init__(self, width=12, dropout=0.2, num_classes=len(CLASSES)):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * width * 9, num_classes)

    def forward(self, images):
        features = self.features(images).flatten(1)
        return self.head(self.dropout(features))


def build_optimizer(model, lr, weight_decay):
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=weight_decay)


def build_schedule(optimizer, epochs):
    """A cosine over the epochs."""
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)


def compute_loss(logits, labels):
    return functional.cross_entropy(logits, labels)


def evaluate(model, loader):
    """Mean loss and share of right answers on held-out images."""
    model.eval()
    total, right, count = 0.0, 0, 0
    with torch.no_grad():
        for images, labels in loader:
            logits = model(images)
            total += compute_loss(logits, labels).item() * len(labels)
            right += int((logits.argmax(1) == labels).sum())
            count += len(labels)
    return total / count, right / count


def save(path, model, optimizer, schedule, epoch, step):
    torch.save(
        {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scheduler": schedule.state_dict(),
            "epoch": epoch,
            "step": step,
            "rng": torch.get_rng_state(),
        },
        path,
    )


def log(path, **values):
    with path.open("a") as file:
        file.write(json.dumps(values) + "\n")


def train(args):
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    train_set = Shapes(384, seed=1000 + args.seed, augment=True)
    val_set = Shapes(96, seed=5000 + args.seed, augment=False)
    train_loader = DataLoader(
        train_set, batch_size=args.batch_size, shuffle=True, num_workers=args.workers, drop_last=True
    )
    val_loader = DataLoader(val_set, batch_size=48)

    model = Classifier()
    optimizer = build_optimizer(model, args.lr, args.weight_decay)
    epochs = -(-args.steps // len(train_loader))
    schedule = build_schedule(optimizer, epochs)

    step = 0
    for epoch in range(epochs):
        model.train()
        for images, labels in train_loader:
            optimizer.zero_grad()
            logits = model(images)
            loss = compute_loss(logits, labels)
            loss.backward()
            optimizer.step()
            step += 1
            lr = optimizer.param_groups[0]["lr"]
            log(args.out / "metrics.jsonl", step=step, epoch=epoch, loss=loss.item(), lr=lr)
        schedule.step()
        val_loss, val_accuracy = evaluate(model, val_loader)
        log(args.out / "metrics.jsonl", step=step, epoch=epoch, val_loss=val_loss, val_accuracy=val_accuracy)
        save(args.out / "checkpoint.pt", model, optimizer, schedule, epoch, step)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("run"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=0.03)
    parser.add_argument("--weight-decay", type=float, default=5e-4)
    parser.add_argument("--workers", type=int, default=2)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
