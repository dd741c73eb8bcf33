"""A deep residual MLP with activation checkpointing: every block runs again in the backward."""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint


class Block(nn.Module):
    """A residual block with dropout, which has to draw the same numbers again."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        """The input plus what the block adds."""
        added: Tensor = self.down(self.dropout(functional.silu(self.up(self.norm(x)))))
        return x + added


class DeepNet(nn.Module):
    """Blocks between an embedding of the inputs and a head."""

    def __init__(self, depth: int, width: int, *, is_checkpointed: bool) -> None:
        super().__init__()
        self.inputs = nn.Linear(10, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.head = nn.Linear(width, 1)
        self.is_checkpointed = is_checkpointed

    def forward(self, x: Tensor) -> Tensor:
        """One number per sample."""
        x = self.inputs(x)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.is_checkpointed else block(x)
        value: Tensor = self.head(x).squeeze(-1)
        return value


def main() -> None:
    """Fits a smooth function of ten inputs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--no-checkpointing", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    model = DeepNet(args.depth, 32, is_checkpointed=not args.no_checkpointing)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    direction = torch.randn(10)
    for step in range(args.steps):
        x = torch.randn(64, 10)
        y = torch.sin(x @ direction / 2) + x[:, 0] * x[:, 1]
        loss = functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        if step % 20 == 0:
            print(step, f"{loss.item():.4f}")
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out / "model.pt")


if __name__ == "__main__":
    main()
