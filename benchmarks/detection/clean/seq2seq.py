"""Sequence to sequence with teacher forcing: the decoder is given the answer, shifted by one, on purpose."""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

PAD, START = 0, 1


class Translator(nn.Module):
    """A small encoder-decoder transformer."""

    def __init__(self, vocab: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, width, padding_idx=PAD)
        self.position = nn.Parameter(0.1 * torch.randn(12, width))
        self.transformer = nn.Transformer(width, 2, 1, 1, 2 * width, dropout=0.0, batch_first=True)
        self.out = nn.Linear(width, vocab)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Logits of the next target token."""
        length = target.shape[1]
        hidden = self.transformer(
            self.embed(source) + self.position[: source.shape[1]],
            self.embed(target) + self.position[:length],
            tgt_mask=nn.Transformer.generate_square_subsequent_mask(length),
            tgt_is_causal=True,
            src_key_padding_mask=source == PAD,
            memory_key_padding_mask=source == PAD,
        )
        logits: Tensor = self.out(hidden)
        return logits


def make_pairs(num_pairs: int) -> tuple[Tensor, Tensor]:
    """Padded sequences, and each with its tokens mapped to others."""
    dictionary = torch.cat([torch.tensor([PAD, START]), 2 + torch.randperm(18)])
    source = torch.randint(2, 20, (num_pairs, 10))
    lengths = torch.randint(5, 11, (num_pairs, 1))
    source[torch.arange(10) >= lengths] = PAD
    return source, dictionary[source]


def main() -> None:
    """Trains for the given number of steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=32)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    loader = DataLoader(TensorDataset(*make_pairs(640)), args.batch_size, shuffle=True, drop_last=True)
    model = Translator(20, 48)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, betas=(0.9, 0.98), eps=1e-9)
    step = 0
    while step < args.steps:
        for source, answer in loader:
            given = torch.cat([torch.full((len(answer), 1), START), answer[:, :-1]], 1)
            logits = model(source, given)
            loss = functional.cross_entropy(logits.flatten(0, 1), answer.flatten(), ignore_index=PAD)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            if step % 20 == 0:
                print(step, loss.item())
            if step >= args.steps:
                break
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out / "translator.pt")


if __name__ == "__main__":
    main()
