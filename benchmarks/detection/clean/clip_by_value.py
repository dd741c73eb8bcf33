"""Clips every gradient to a small value on purpose, for a recurrent net that adds numbers."""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


class Adder(nn.Module):
    """Reads a sequence and says the sum of the marked numbers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.rnn = nn.RNN(2, width, nonlinearity="tanh", batch_first=True)
        self.out = nn.Linear(width, 1)

    def forward(self, sequence: Tensor) -> Tensor:
        """One number per sequence."""
        _, last = self.rnn(sequence)
        total: Tensor = self.out(last[-1]).squeeze(-1)
        return total


def main() -> None:
    """Trains on short sequences."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--clip", type=float, default=0.05)
    parser.add_argument("--width", type=int, default=32)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    model = Adder(args.width)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=2e-3)
    for step in range(args.steps):
        values, marks = torch.rand(64, 8), (torch.rand(64, 8) < 0.5).float()  # noqa: PLR2004 - half of them
        sequence = torch.stack([values, marks], dim=-1)
        loss = functional.mse_loss(model(sequence), (values * marks).sum(1))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_value_(model.parameters(), args.clip)
        optimizer.step()
        if step % 20 == 0:
            print(step, loss.item())
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out / "adder.pt")


if __name__ == "__main__":
    main()
