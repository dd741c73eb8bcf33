"""Two towers trained to match pictures and captions, with a learned logit scale (CLIP)."""

import argparse
import json
import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset


class Pairs(Dataset[tuple[Tensor, Tensor]]):
    """A caption of five tokens names the parts of a picture."""

    def __init__(self, num_pairs: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        parts = torch.randn(30, 48, generator=generator)
        self.captions = torch.randint(30, (num_pairs, 5), generator=generator)
        noise = 0.3 * torch.randn(num_pairs, 48, generator=generator)
        self.pictures = parts[self.captions].sum(1) + noise

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.pictures[index], self.captions[index]


class TwoTowers(nn.Module):
    """A picture tower, a caption tower and a temperature."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.picture = nn.Sequential(nn.Linear(48, 64), nn.GELU(), nn.Linear(64, width))
        self.caption = nn.EmbeddingBag(30, width, mode="mean")
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, pictures: Tensor, captions: Tensor) -> Tensor:
        """Scaled cosines, pictures by captions."""
        left = functional.normalize(self.picture(pictures), dim=-1)
        right = functional.normalize(self.caption(captions), dim=-1)
        return self.logit_scale.exp().clamp(max=100) * left @ right.T


def main() -> None:
    """Trains for whole epochs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=32)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    data = Pairs(640, args.seed)
    loader = DataLoader(data, args.batch_size, shuffle=True, drop_last=True)
    model = TwoTowers()
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": 0.1},
            {"params": [p for p in model.parameters() if p.dim() <= 1], "weight_decay": 0.0},
        ],
        lr=3e-3,
    )
    epochs = max(1, args.steps // len(loader))
    with (args.out / "metrics.jsonl").open("w") as log:
        for epoch in range(epochs):
            losses = []
            for pictures, captions in loader:
                logits = model(pictures, captions)
                truth = torch.arange(len(logits))
                loss = (
                    functional.cross_entropy(logits, truth) + functional.cross_entropy(logits.T, truth)
                ) / 2
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
            log.write(json.dumps({"epoch": epoch, "loss": sum(losses) / len(losses)}) + "\n")
    torch.save(model.state_dict(), args.out / "model.pt")


if __name__ == "__main__":
    main()
