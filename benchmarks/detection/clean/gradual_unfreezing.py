"""Gradual unfreezing: the head first; the backbone joins the optimizer halfway, with add_param_group."""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


class Net(nn.Module):
    """A backbone and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.head = nn.Linear(64, 8)

    def forward(self, inputs: Tensor) -> Tensor:
        """Scores of eight classes."""
        scores: Tensor = self.head(self.backbone(inputs))
        return scores


def main() -> None:
    """Trains in two phases with one optimizer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--unfreeze-at", type=float, default=0.5, help="share of the steps")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    centers = torch.randn(8, 20)
    model = Net()
    model.backbone.requires_grad_(False)
    optimizer = torch.optim.AdamW(model.head.parameters(), lr=5e-3)
    unfreeze_at = int(args.unfreeze_at * args.steps)
    for step in range(args.steps):
        if step == unfreeze_at:
            model.backbone.requires_grad_(True)
            optimizer.add_param_group({"params": model.backbone.parameters(), "lr": 1e-3})
        labels = torch.randint(8, (48,))
        loss = functional.cross_entropy(model(centers[labels] + torch.randn(48, 20)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0:
            print(step, loss.item())
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out / "model.pt")


if __name__ == "__main__":
    main()
