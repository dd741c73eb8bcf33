"""Class weights for a set of which nine in ten samples are of one class."""

import argparse
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def main() -> None:
    """Trains a small classifier and prints recall per class on the training set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=64)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)

    shares = torch.tensor([0.90, 0.06, 0.04])
    labels = torch.multinomial(shares, 1280, replacement=True)
    inputs = 1.5 * torch.randn(3, 10)[labels] + torch.randn(1280, 10)
    counts = labels.bincount(minlength=3)
    weights = counts.sum() / (3 * counts)
    loader = DataLoader(TensorDataset(inputs, labels), batch_size=args.batch_size, shuffle=True)

    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 3))
    criterion = nn.CrossEntropyLoss(weight=weights)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    done = 0
    while done < args.steps:
        for batch, target in loader:
            loss = criterion(model(batch), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done += 1
            if done == args.steps:
                break

    model.eval()
    with torch.no_grad():
        guesses = model(inputs).argmax(1)
    for label in range(3):
        print(label, (guesses[labels == label] == label).float().mean().item())
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save({"model": model.state_dict(), "class_weights": weights}, args.out / "model.pt")


if __name__ == "__main__":
    main()
