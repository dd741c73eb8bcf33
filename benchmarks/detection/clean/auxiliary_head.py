"""An auxiliary head that only every third step trains; in the other steps it has no gradient on purpose."""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


class Net(nn.Module):
    """A classifier that can also tell how a picture was rotated."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(12, 24, 3),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.classify = nn.Linear(24 * 4, 6)
        self.rotation = nn.Linear(24 * 4, 4)

    def forward(self, images: Tensor, *, is_auxiliary: bool = False) -> Tensor:
        """Scores of classes, or of rotations."""
        features = self.features(images)
        scores: Tensor = self.rotation(features) if is_auxiliary else self.classify(features)
        return scores


def rotate(images: Tensor) -> tuple[Tensor, Tensor]:
    """Each image turned by a random number of quarters."""
    quarters = torch.randint(4, (len(images),))
    turned = [
        torch.rot90(image, quarter, (1, 2)) for image, quarter in zip(images, quarters.tolist(), strict=True)
    ]
    return torch.stack(turned), quarters


def main() -> None:
    """Trains with the extra loss now and then."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--every", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    prototypes = torch.randn(6, 1, 8, 8)
    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for step in range(args.steps):
        labels = torch.randint(6, (32,))
        images = prototypes[labels] + torch.randn(32, 1, 8, 8)
        loss = functional.cross_entropy(model(images), labels)
        if step % args.every == 0:
            turned, quarters = rotate(images)
            loss = loss + 0.3 * functional.cross_entropy(model(turned, is_auxiliary=True), quarters)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step % 15 == 0:
            print(step, round(loss.item(), 4))
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out / "model.pt")


if __name__ == "__main__":
    main()
