"""An autoencoder: the target is the input on purpose."""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


class AutoEncoder(nn.Module):
    """Squeezes images through a few numbers."""

    def __init__(self, bottleneck: int) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, bottleneck))
        self.decode = nn.Sequential(
            nn.Linear(bottleneck, 48), nn.ReLU(), nn.Linear(48, 64), nn.Unflatten(1, (1, 8, 8))
        )

    def forward(self, images: Tensor) -> Tensor:
        """The images, rebuilt."""
        rebuilt: Tensor = self.decode(self.encode(images))
        return rebuilt


def main() -> None:
    """Trains on smooth pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--bottleneck", type=int, default=6)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    images = functional.interpolate(torch.randn(600, 1, 2, 2), size=8, mode="bilinear", align_corners=True)
    model = AutoEncoder(args.bottleneck)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    step = 0
    while step < args.steps:
        for picked in torch.randperm(len(images)).split(args.batch_size):
            batch = images[picked]
            loss = functional.mse_loss(model(batch), batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            if step % 20 == 0:
                print(step, loss.item())
            if step == args.steps:
                break
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out / "autoencoder.pt")


if __name__ == "__main__":
    main()
