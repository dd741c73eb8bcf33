"""Super-resolution: learns what to add to an upsampled picture; the first output is near the answer already."""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


class Upscaler(nn.Module):
    """A bilinear upscaling plus a learned correction through a pixel shuffle."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1), nn.PReLU(), nn.Conv2d(width, width, 3, padding=1), nn.PReLU()
        )
        self.expand = nn.Conv2d(width, 4, 3, padding=1)

    def forward(self, small: Tensor) -> Tensor:
        """Pictures of twice the size."""
        base = functional.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False)
        return base + functional.pixel_shuffle(self.expand(self.features(small)), 2)


def make_pictures(size: int) -> Tensor:
    """Sharp rectangles."""
    grid = torch.arange(16)
    low = torch.randint(1, 7, (2, size, 1))
    high = low + torch.randint(4, 9, (2, size, 1))
    inside = (grid >= low) & (grid < high)
    return (inside[0][:, :, None] & inside[1][:, None, :]).float().unsqueeze(1)


def main() -> None:
    """Trains with an L1 loss and prints the signal-to-noise ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--width", type=int, default=16)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    model = Upscaler(args.width)
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    for step in range(args.steps):
        pictures = make_pictures(16)
        small = functional.avg_pool2d(pictures, 2)
        restored = model(small)
        loss = functional.l1_loss(restored, pictures)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 15 == 0:
            psnr = -10 * torch.log10(functional.mse_loss(restored.detach(), pictures)).item()
            print(f"{step} loss {loss.item():.4f} psnr {psnr:.2f}")
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out / "upscaler.pt")


if __name__ == "__main__":
    main()
