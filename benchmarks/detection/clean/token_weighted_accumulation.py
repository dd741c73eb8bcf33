"""Padded batches: each micro-batch's mean loss is weighted by its share of the tokens that are not padding."""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

PADDING, IGNORED = 0, -100


class RecurrentLM(nn.Module):
    """Embedding, GRU and output."""

    def __init__(self, vocab: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, width, padding_idx=PADDING)
        self.core = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, vocab)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits, [B, T, V]."""
        logits: Tensor = self.head(self.core(self.embed(tokens))[0])
        return logits


def make_batch(size: int) -> tuple[Tensor, Tensor]:
    """Counting sequences of several strides and lengths, padded, and their shifted targets."""
    sequences = []
    for _ in range(size):
        length = int(torch.randint(4, 24, ()))
        start, stride = int(torch.randint(19, ())), int(torch.randint(1, 4, ()))
        sequences.append((start + stride * torch.arange(length + 1)) % 19 + 1)
    inputs = pad_sequence([s[:-1] for s in sequences], batch_first=True, padding_value=PADDING)
    targets = pad_sequence([s[1:] for s in sequences], batch_first=True, padding_value=IGNORED)
    return inputs, targets


def main() -> None:
    """Trains with gradient accumulation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--accumulate", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=8)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    model = RecurrentLM(20, 40)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for step in range(args.steps):
        micro_batches = [make_batch(args.batch_size) for _ in range(args.accumulate)]
        counts = [int((targets != IGNORED).sum()) for _, targets in micro_batches]
        optimizer.zero_grad()
        step_loss = 0.0
        for (inputs, targets), count in zip(micro_batches, counts, strict=True):
            mean = functional.cross_entropy(
                model(inputs).transpose(1, 2), targets, ignore_index=IGNORED, reduction="mean"
            )
            loss = mean * count / sum(counts)
            loss.backward()
            step_loss += loss.item()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 10 == 0:
            print(f"step {step} loss {step_loss:.4f} tokens {sum(counts)}")
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save({"model": model.state_dict(), "config": {"vocab": 20, "width": 40}}, args.out / "model.pt")


if __name__ == "__main__":
    main()
