"""Masked language model: most targets are ignored, and targets are tokens at their own place, not shifted."""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

MASK, IGNORED = 32, -100


class MaskedLM(nn.Module):
    """A bidirectional encoder over tokens."""

    def __init__(self, width: int, depth: int, dropout: float) -> None:
        super().__init__()
        self.embed = nn.Embedding(33, width)
        self.position = nn.Parameter(0.2 * torch.randn(16, width))
        layer = nn.TransformerEncoderLayer(width, 2, 2 * width, dropout, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 32))

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits, [B, T, V]."""
        logits: Tensor = self.head(self.encoder(self.embed(tokens) + self.position))
        return logits


def mask_tokens(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Masks one token in four, and lets all others be ignored."""
    is_masked = torch.rand(tokens.shape) < 0.25  # noqa: PLR2004 - one in four
    is_masked[:, 0] |= ~is_masked.any(1)
    return tokens.masked_fill(is_masked, MASK), tokens.masked_fill(~is_masked, IGNORED)


def main() -> None:
    """Trains on sequences in which a token fixes most of the others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--depth", type=int, default=1)
    parser.add_argument("--dropout", type=float, default=0.1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    templates = torch.randint(32, (6, 16))
    model = MaskedLM(48, args.depth, args.dropout)
    criterion = nn.CrossEntropyLoss(ignore_index=IGNORED)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model.train()
    for step in range(args.steps):
        tokens = templates[torch.randint(6, (32,))]
        tokens = torch.where(torch.rand(tokens.shape) < 0.05, torch.randint(32, tokens.shape), tokens)  # noqa: PLR2004
        inputs, targets = mask_tokens(tokens)
        loss = criterion(model(inputs).flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0:
            print(step, loss.item())
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out / "model.pt")


if __name__ == "__main__":
    main()
