"""Batches of similar length under a budget of tokens: batch size and sequence length change on purpose."""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset


class Sequences(Dataset[tuple[Tensor, int]]):
    """Sequences of many lengths, and which of two tokens is in there more often."""

    def __init__(self, num_sequences: int) -> None:
        self.items = []
        for _ in range(num_sequences):
            label = int(torch.randint(2, ()))
            length = int(torch.randint(3, 40, ()))
            weights = torch.tensor([1.0, 1.0, 1.0, 1.0, 3.0 - 2 * label, 1.0 + 2 * label])
            self.items.append((1 + torch.multinomial(weights, length, replacement=True), label))

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.items[index]


def make_buckets(data: Sequences, budget: int) -> list[list[int]]:
    """Indices of similar length together, so that no batch has more tokens than the budget, in random order."""
    order = sorted(range(len(data)), key=lambda index: len(data.items[index][0]))
    buckets: list[list[int]] = [[]]
    for index in order:
        if (len(buckets[-1]) + 1) * len(data.items[index][0]) > budget:
            buckets.append([])
        buckets[-1].append(index)
    return [buckets[index] for index in torch.randperm(len(buckets)).tolist()]


def collate(items: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    """Pads with zero."""
    return pad_sequence([tokens for tokens, _ in items], batch_first=True), torch.tensor(
        [label for _, label in items]
    )


class MeanPool(nn.Module):
    """The mean of the vectors of real tokens, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 16, padding_idx=0)
        self.head = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 2))

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores of two classes."""
        counts = (tokens != 0).sum(1, keepdim=True)
        scores: Tensor = self.head(self.embed(tokens).sum(1) / counts)
        return scores


def main() -> None:
    """Trains epoch by epoch with new buckets each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--budget", type=int, default=600)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    data = Sequences(600)
    model = MeanPool()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    step = 0
    while step < args.steps:
        loader = DataLoader(data, batch_sampler=make_buckets(data, args.budget), collate_fn=collate)
        for tokens, labels in loader:
            loss = functional.cross_entropy(model(tokens), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            if step % 20 == 0:
                print(step, tuple(tokens.shape), loss.item())
            if step == args.steps:
                break
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out / "model.pt")


if __name__ == "__main__":
    main()
