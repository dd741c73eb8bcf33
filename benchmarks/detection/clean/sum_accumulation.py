"""Accumulates summed losses and divides each by the tokens of the whole step, so that all tokens count alike."""

import argparse
import csv
from pathlib import Path

import torch
from torch import Tensor, nn


class Tagger(nn.Module):
    """Tags each token from its neighbours."""

    def __init__(self, vocab: int, width: int, num_tags: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        self.conv = nn.Conv1d(width, width, 3, padding=1)
        self.out = nn.Linear(width, num_tags)

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores, [B, T, tags]."""
        hidden = self.conv(self.embed(tokens).transpose(1, 2)).transpose(1, 2)
        scores: Tensor = self.out(torch.relu(hidden))
        return scores


def make_micro_batch(size: int, tags: Tensor) -> tuple[Tensor, Tensor]:
    """Sentences of one random length; a token's tag depends on itself and the one before."""
    tokens = torch.randint(30, (size, int(torch.randint(5, 20, ()))))
    before = torch.cat([torch.zeros(size, 1, dtype=torch.long), tokens[:, :-1]], 1)
    return tokens, (tags[tokens] + (before > 14).long()) % 4  # noqa: PLR2004 - half of the vocabulary


def main() -> None:
    """Trains the tagger."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--accumulate", type=int, default=4)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    tags = torch.randint(4, (30,))
    model = Tagger(30, 32, 4)
    criterion = nn.CrossEntropyLoss(reduction="sum")
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    rows = []
    for step in range(args.steps):
        micro_batches = [make_micro_batch(8, tags) for _ in range(args.accumulate)]
        num_tokens = sum(tokens.numel() for tokens, _ in micro_batches)
        total = 0.0
        optimizer.zero_grad()
        for tokens, targets in micro_batches:
            loss = criterion(model(tokens).flatten(0, 1), targets.flatten()) / num_tokens
            loss.backward()
            total += loss.item()
        optimizer.step()
        rows.append((step, total, num_tokens))
    args.out.mkdir(parents=True, exist_ok=True)
    with (args.out / "metrics.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("step", "loss", "tokens"), *rows])
    torch.save(model.state_dict(), args.out / "tagger.pt")


if __name__ == "__main__":
    main()
