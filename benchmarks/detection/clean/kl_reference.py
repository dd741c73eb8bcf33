"""Policy gradient on a reward with a KL penalty towards a frozen reference: the loss has any sign."""

import argparse
import copy
import json
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


class Generator(nn.Module):
    """A recurrent generator of short sequences."""

    def __init__(self, vocab: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab + 1, width)
        self.core = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, vocab)

    def forward(self, tokens: Tensor) -> Tensor:
        """Log-probabilities of the next token, [B, T, V]."""
        hidden, _ = self.core(self.embed(tokens))
        return functional.log_softmax(self.head(hidden), -1)


@torch.no_grad()
def sample(policy: Generator, size: int, length: int, vocab: int) -> Tensor:
    """Sequences that begin with the start token."""
    tokens = torch.full((size, 1), vocab)
    for _ in range(length):
        following = torch.multinomial(policy(tokens)[:, -1].exp(), 1)
        tokens = torch.cat([tokens, following], 1)
    return tokens


def main() -> None:
    """Teaches the generator to count even tokens up, without leaving the reference far behind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--kl", type=float, default=0.05)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    vocab = 10
    policy = Generator(vocab, 32)
    reference = copy.deepcopy(policy).requires_grad_(False).eval()
    optimizer = torch.optim.Adam(policy.parameters(), lr=5e-3)
    with (args.out / "metrics.jsonl").open("w") as log:
        for step in range(args.steps):
            tokens = sample(policy, args.batch_size, 6, vocab)
            answers = tokens[:, 1:]
            reward = (answers % 2 == 0).float().mean(1)
            log_probs = policy(tokens[:, :-1])
            with torch.no_grad():
                base = reference(tokens[:, :-1])
            chosen = log_probs.gather(-1, answers[..., None]).squeeze(-1).sum(1)
            divergence = (log_probs.exp() * (log_probs - base)).sum(-1).mean()
            advantage = (reward - reward.mean()) / (reward.std() + 1e-6)
            loss = -(advantage * chosen).mean() + args.kl * divergence
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
            optimizer.step()
            row = {"step": step, "reward": reward.mean().item(), "kl": divergence.item()}
            log.write(json.dumps(row) + "\n")
    print("reward", row["reward"], "kl", row["kl"])
    torch.save(policy.state_dict(), args.out / "policy.pt")


if __name__ == "__main__":
    main()
