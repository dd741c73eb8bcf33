"""A focal loss written by hand for dense detection: few positives, a prior in the last bias, small loss values."""

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor, nn


class FocalLoss(nn.Module):
    """Binary focal loss, summed and divided by the number of positives."""

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0) -> None:
        super().__init__()
        self.alpha = alpha
        self.gamma = gamma

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """One number."""
        probability = torch.sigmoid(logits)
        p_true = targets * probability + (1 - targets) * (1 - probability)
        weight = targets * self.alpha + (1 - targets) * (1 - self.alpha)
        loss = -weight * (1 - p_true) ** self.gamma * torch.log(p_true.clamp_min(1e-7))
        return loss.sum() / targets.sum().clamp_min(1.0)


def make_batch(size: int) -> tuple[Tensor, Tensor]:
    """Images with one or two bright crosses; the target marks their centers."""
    targets = torch.zeros(size, 12, 12)
    for _ in range(2):
        place = torch.randint(1, 11, (size, 2))
        targets[torch.arange(size), place[:, 0], place[:, 1]] = 1
    cross = torch.tensor([[0.0, 1, 0], [1, 1, 1], [0, 1, 0]])[None, None]
    images = nn.functional.conv2d(targets[:, None], cross, padding=1)
    return images + 0.2 * torch.randn_like(images), targets


def main() -> None:
    """Trains a small fully convolutional detector."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--gamma", type=float, default=2.0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 1, 1),
    )
    nn.init.constant_(model[-1].get_parameter("bias"), -math.log(0.99 / 0.01))
    criterion = FocalLoss(gamma=args.gamma)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for step in range(args.steps):
        images, targets = make_batch(args.batch_size)
        loss = criterion(model(images).squeeze(1), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0:
            print(step, loss.item())
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out / "model.pt")


if __name__ == "__main__":
    main()
