"""CTC on frames of make-believe speech: sequence-first log-probabilities, which are right for CTCLoss."""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


class Recognizer(nn.Module):
    """A bidirectional GRU over frames."""

    def __init__(self, features: int, width: int, letters: int) -> None:
        super().__init__()
        self.gru = nn.GRU(features, width, bidirectional=True)
        self.out = nn.Linear(2 * width, letters + 1)

    def forward(self, frames_TBF: Tensor) -> Tensor:  # noqa: N803 - shape suffix
        """Log-probabilities, [T, B, letters and blank]."""
        return functional.log_softmax(self.out(self.gru(frames_TBF)[0]), dim=-1)


def main() -> None:
    """Trains on words of four letters, three frames each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=16)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    sounds = torch.randn(7, 12)
    model = Recognizer(12, 32, 6)
    criterion = nn.CTCLoss(blank=0, zero_infinity=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(args.steps):
        lengths = torch.randint(2, 5, (args.batch_size,))
        words = torch.randint(1, 7, (args.batch_size, 4))
        spoken = words.masked_fill(torch.arange(4) >= lengths[:, None], 0).repeat_interleave(3, dim=1)
        frames = sounds[spoken].transpose(0, 1)
        frames = frames + 0.4 * torch.randn_like(frames)
        loss = criterion(model(frames), words, 3 * lengths, lengths)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 15 == 0:
            print(step, loss.item())
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out / "recognizer.pt")


if __name__ == "__main__":
    main()
