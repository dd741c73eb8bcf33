"""A character model with truncated backpropagation: the hidden state goes on, detached on purpose, chunks in order."""

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


class CharLSTM(nn.Module):
    """An LSTM over characters."""

    def __init__(self, vocab: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.head = nn.Linear(width, vocab)

    def forward(
        self, tokens: Tensor, state: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Logits and the state after the last token."""
        hidden, state_after = self.lstm(self.embed(tokens), state)
        return self.head(hidden), state_after


def main() -> None:
    """Reads parallel streams chunk by chunk."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--chunk", type=int, default=16)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    words = ["steam", "engine", "river", "stone", "cloud", "lantern", "harbour", "violet"]
    text = " ".join(words[index] for index in torch.randint(len(words), (6000,)).tolist())
    letters = sorted(set(text))
    codes = torch.tensor([letters.index(letter) for letter in text])
    streams = codes[: len(codes) // args.batch_size * args.batch_size].view(args.batch_size, -1)
    model = CharLSTM(len(letters), 48)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    state = None
    for step in range(args.steps):
        start = step * args.chunk
        inputs = streams[:, start : start + args.chunk]
        targets = streams[:, start + 1 : start + args.chunk + 1]
        if state is not None:
            state = (state[0].detach(), state[1].detach())
        logits, state = model(inputs, state)
        loss = functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        if step % 15 == 0:
            print(f"{step} perplexity {math.exp(loss.item()):.2f}")
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save({"model": model.state_dict(), "letters": "".join(letters)}, args.out / "chars.pt")


if __name__ == "__main__":
    main()
