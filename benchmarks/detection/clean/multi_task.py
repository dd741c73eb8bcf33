"""Three tasks on one trunk, a backward for each loss before the one step: the gradients add up on purpose."""

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


class MultiTask(nn.Module):
    """A trunk with a head for each task."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(16, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.heads = nn.ModuleDict(
            {"kind": nn.Linear(width, 5), "size": nn.Linear(width, 1), "flags": nn.Linear(width, 3)}
        )

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """What each head says."""
        hidden = self.trunk(inputs)
        return {name: head(hidden) for name, head in self.heads.items()}


def main() -> None:
    """Trains all tasks together."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--separate", type=int, choices=(0, 1), default=1, help="a backward for each loss")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)

    centers, direction, planes = torch.randn(5, 16), torch.randn(16, 1) / 4, torch.randn(16, 3)
    model = MultiTask()
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    weights = {"kind": 1.0, "size": 0.5, "flags": 1.0}
    with (args.out / "metrics.jsonl").open("w") as log:
        for step in range(args.steps):
            kinds = torch.randint(5, (48,))
            inputs = centers[kinds] + 0.6 * torch.randn(48, 16)
            said = model(inputs)
            losses = {
                "kind": functional.cross_entropy(said["kind"], kinds),
                "size": functional.smooth_l1_loss(said["size"], inputs @ direction),
                "flags": functional.binary_cross_entropy_with_logits(
                    said["flags"], (inputs @ planes > 0).float()
                ),
            }
            optimizer.zero_grad()
            if args.separate:
                for name, loss in losses.items():
                    (weights[name] * loss).backward(retain_graph=name != "flags")
            else:
                torch.stack([weights[name] * loss for name, loss in losses.items()]).sum().backward()
            optimizer.step()
            log.write(
                json.dumps({"step": step, **{f"loss_{n}": loss.item() for n, loss in losses.items()}}) + "\n"
            )
    torch.save(model.state_dict(), args.out / "model.pt")


if __name__ == "__main__":
    main()
