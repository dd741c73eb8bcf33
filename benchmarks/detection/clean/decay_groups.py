"""AdamW with weight decay on matrices only, fused, for a pre-norm MLP-mixer."""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


class MixerBlock(nn.Module):
    """Mixes patches, then channels."""

    def __init__(self, patches: int, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.mix_patches = nn.Sequential(
            nn.Linear(patches, 2 * patches), nn.GELU(), nn.Linear(2 * patches, patches)
        )
        self.norm2 = nn.LayerNorm(width)
        self.mix_channels = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Patches by channels, as given."""
        x = x + self.mix_patches(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        mixed: Tensor = x + self.mix_channels(self.norm2(x))
        return mixed


class Mixer(nn.Module):
    """Patches of four pixels, blocks, and the mean."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, width, 2, stride=2)
        self.blocks = nn.Sequential(*(MixerBlock(16, width) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 6)

    def forward(self, images: Tensor) -> Tensor:
        """Scores of six classes."""
        x = self.embed(images).flatten(2).transpose(1, 2)
        scores: Tensor = self.head(self.norm(self.blocks(x)).mean(1))
        return scores


def configure_optimizer(model: nn.Module, lr: float, decay: float, kind: str) -> torch.optim.Optimizer:
    """Decay for matrices; none for biases and norms."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.dim() >= 2], "weight_decay": decay},  # noqa: PLR2004 - matrices
        {"params": [p for p in trainable if p.dim() < 2], "weight_decay": 0.0},  # noqa: PLR2004
    ]
    return torch.optim.AdamW(groups, lr=lr, fused=kind == "fused", foreach=kind == "foreach")


def main() -> None:
    """Trains on noisy glyphs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--implementation", choices=("fused", "foreach", "loop"), default="fused")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    glyphs = torch.randn(6, 1, 8, 8)
    model = Mixer(args.depth, 24)
    optimizer = configure_optimizer(model, 3e-3, 0.1, args.implementation)
    for step in range(args.steps):
        labels = torch.randint(6, (32,))
        images = glyphs[labels] + torch.randn(32, 1, 8, 8)
        loss = functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0:
            print(step, loss.item())
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out / "mixer.pt")


if __name__ == "__main__":
    main()
