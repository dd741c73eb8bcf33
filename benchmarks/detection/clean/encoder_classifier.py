"""A bidirectional transformer encoder that classifies sequences from a class token: it sees the future on purpose."""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


class Classifier(nn.Module):
    """A class token in front, full attention, and a head on it."""

    def __init__(self, vocab: int, width: int, heads: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(0.02 * torch.randn(1, 21, width))
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores of three classes."""
        x = torch.cat([self.token.expand(len(tokens), -1, -1), self.embed(tokens)], 1) + self.position
        x = x + self.attention(x, x, x, need_weights=False)[0]
        scores: Tensor = self.head(self.norm(x[:, 0]))
        return scores


def main() -> None:
    """Trains on sequences whose class is the most frequent third of the vocabulary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--heads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    tokens = torch.randint(30, (1280, 20))
    biased = torch.randint(3, (1280, 1))
    tokens = torch.where(torch.rand(1280, 20) < 0.4, 10 * biased + tokens % 10, tokens)  # noqa: PLR2004
    labels = (tokens // 10 == torch.arange(3)[:, None, None]).sum(-1).argmax(0)
    loader = DataLoader(TensorDataset(tokens, labels), batch_size=args.batch_size, shuffle=True)
    model = Classifier(30, 32, args.heads)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for epoch in range(max(1, args.steps // len(loader))):
        model.train()
        right, total = 0, 0.0
        for batch, target in loader:
            scores = model(batch)
            loss = criterion(scores, target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            right += int((scores.argmax(1) == target).sum())
            total += loss.item()
        print(f"epoch {epoch}: loss {total / len(loader):.4f} accuracy {right / len(labels):.3f}")
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out / "classifier.pt")


if __name__ == "__main__":
    main()
