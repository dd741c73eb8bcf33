"""Segmentation with a border that is ignored (255), a dice term written by hand, and logits in four dimensions."""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

VOID = 255


class UNet(nn.Module):
    """One level down, one level up, with a skip."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.bottom = nn.Sequential(
            nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU()
        )
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.out = nn.Conv2d(2 * width, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Scores per pixel."""
        top = self.down(images)
        bottom = self.bottom(functional.max_pool2d(top, 2))
        scores: Tensor = self.out(torch.cat([top, self.up(bottom)], 1))
        return scores


def dice_loss(scores: Tensor, masks: Tensor) -> Tensor:
    """One minus the mean overlap of the classes, void pixels left out."""
    counted = (masks != VOID).unsqueeze(1)
    truth = functional.one_hot(masks.where(masks != VOID, 0), scores.shape[1]).permute(0, 3, 1, 2) * counted
    guess = scores.softmax(1) * counted
    overlap = 2 * (guess * truth).sum((0, 2, 3)) / (guess + truth).sum((0, 2, 3)).clamp_min(1e-6)
    return 1 - overlap.mean()


def make_batch(colors: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Images of four quarters of random classes; the border is void."""
    quarters = torch.randint(len(colors), (size, 2, 2))
    masks = quarters.repeat_interleave(8, 1).repeat_interleave(8, 2)
    images = colors[masks].permute(0, 3, 1, 2) + 0.7 * torch.randn(size, 3, 16, 16)
    masks = functional.pad(masks[:, 1:-1, 1:-1], (1, 1, 1, 1), value=VOID)
    return images, masks


def main() -> None:
    """Trains the net."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--dice", type=float, default=0.5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    colors = torch.randn(4, 3)
    model = UNet(12, 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for step in range(args.steps):
        images, masks = make_batch(colors, args.batch_size)
        scores = model(images)
        loss = functional.cross_entropy(scores, masks, ignore_index=VOID) + args.dice * dice_loss(
            scores, masks
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 10 == 0:
            print(step, loss.item())
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out / "unet.pt")


if __name__ == "__main__":
    main()
