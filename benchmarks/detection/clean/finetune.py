"""Fine-tunes all layers from a pretrained state with a lower rate for the backbone: the loss starts low."""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


class Net(nn.Module):
    """A backbone and a head."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.head = nn.Linear(64, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Scores."""
        scores: Tensor = self.head(self.backbone(inputs))
        return scores


def solve_head(model: Net, inputs: Tensor, labels: Tensor) -> None:
    """A least-squares head, so that the pretrained model is good without a training of its own."""
    with torch.no_grad():
        features = model.backbone(inputs)
        targets = 4 * functional.one_hot(labels, model.head.out_features).float()
        ridge = features.T @ features + torch.eye(features.shape[1])
        model.head.weight.copy_(torch.linalg.solve(ridge, features.T @ targets).T)
        model.head.bias.zero_()


def main() -> None:
    """Writes a pretrained file where there is none, loads it, and trains on a task that has moved a little."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--head-lr", type=float, default=3e-3)
    parser.add_argument("--backbone-lr", type=float, default=1e-3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    centers = torch.randn(6, 16)
    labels = torch.randint(6, (1200,))
    old = centers[labels] + 0.8 * torch.randn(1200, 16)
    pretrained = Net(6)
    solve_head(pretrained, old, labels)
    torch.save(pretrained.state_dict(), args.out / "pretrained.pt")

    moved = centers + 0.5 * torch.randn(6, 16)
    model = Net(6)
    model.load_state_dict(torch.load(args.out / "pretrained.pt", weights_only=True))
    optimizer = torch.optim.AdamW(
        [
            {"params": model.backbone.parameters(), "lr": args.backbone_lr},
            {"params": model.head.parameters(), "lr": args.head_lr},
        ]
    )
    for step in range(args.steps):
        picked = torch.randint(6, (32,))
        loss = functional.cross_entropy(model(moved[picked] + 0.8 * torch.randn(32, 16)), picked)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0:
            print(step, loss.item())
    torch.save(model.state_dict(), args.out / "finetuned.pt")


if __name__ == "__main__":
    main()
