"""Direct preference optimization of a tiny recurrent policy against a fixed copy of it as the reference."""

import argparse
import copy
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


class Policy(nn.Module):
    """A recurrent language model."""

    def __init__(self, vocab: int = 24, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        self.core = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, vocab)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the next token, [B, T, V]."""
        hidden, _ = self.core(self.embed(tokens))
        logits: Tensor = self.head(hidden)
        return logits


def sum_log_probs(model: nn.Module, tokens: Tensor, prompt_length: int) -> Tensor:
    """Log-probability of each response, [B]."""
    log_probs = model(tokens[:, :-1]).log_softmax(-1)
    picked = log_probs.gather(-1, tokens[:, 1:, None]).squeeze(-1)
    response: Tensor = picked[:, prompt_length - 1 :].sum(-1)
    return response


def make_pairs(size: int) -> tuple[Tensor, Tensor]:
    """Prompts of four tokens; the preferred answer counts upwards, the rejected one is random."""
    prompt = torch.randint(24, (size, 4))
    chosen = (prompt[:, -1:] + torch.arange(1, 7)) % 24
    rejected = torch.randint(24, (size, 6))
    return torch.cat([prompt, chosen], 1), torch.cat([prompt, rejected], 1)


def main() -> None:
    """Trains the policy on preference pairs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--beta", type=float, default=0.3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    policy = Policy()
    reference = copy.deepcopy(policy).eval()
    reference.requires_grad_(False)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=2e-3, weight_decay=0.0)
    for step in range(args.steps):
        chosen, rejected = make_pairs(args.batch_size)
        with torch.no_grad():
            base = sum_log_probs(reference, chosen, 4) - sum_log_probs(reference, rejected, 4)
        margin = sum_log_probs(policy, chosen, 4) - sum_log_probs(policy, rejected, 4)
        loss = -functional.logsigmoid(args.beta * (margin - base)).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        if step % 10 == 0:
            print(f"{step} loss {loss.item():.4f} margin {(margin - base).mean().item():.3f}")
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(policy.state_dict(), args.out / "policy.pt")


if __name__ == "__main__":
    main()
