"""A causal model that takes labels equal to its inputs and shifts them itself, as the large libraries do."""

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass
class Output:
    """What the model gives."""

    loss: Tensor | None
    logits: Tensor


class CausalLM(nn.Module):
    """A GRU language model with a loss of its own."""

    def __init__(self, vocab: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        self.core = nn.GRU(width, width, num_layers=1, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocab, bias=False)

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> Output:
        """Logits, and the loss where labels are given."""
        logits = self.head(self.norm(self.core(self.embed(input_ids))[0]))
        if labels is None:
            return Output(None, logits)
        shifted_logits, shifted_labels = logits[:, :-1], labels[:, 1:]
        loss = functional.cross_entropy(
            shifted_logits.reshape(-1, logits.shape[-1]), shifted_labels.reshape(-1), ignore_index=-100
        )
        return Output(loss, logits)


def make_batch(size: int) -> dict[str, Tensor]:
    """Padded sequences that repeat a short random motif; labels are a copy with padding masked."""
    motif = torch.randint(1, 16, (size, 3))
    input_ids = motif.repeat(1, 6)
    is_padding = torch.arange(18) >= torch.randint(9, 19, (size, 1))
    input_ids = input_ids.masked_fill(is_padding, 0)
    return {"input_ids": input_ids, "labels": input_ids.masked_fill(is_padding, -100)}


def main() -> None:
    """Trains on motifs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--batch-size", type=int, default=32)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    model = CausalLM(16, 64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model.train()
    for step in range(args.steps):
        output = model(**make_batch(args.batch_size))
        output.loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 20 == 0:
            print(step, output.loss.item())
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out / "model.pt")


if __name__ == "__main__":
    main()
