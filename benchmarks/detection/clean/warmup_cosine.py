"""Warm-up from zero and cosine decay to a tenth, set by hand: the first step has a tiny rate, or none, on purpose."""

import argparse
import json
import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


def get_lr(step: int, *, peak: float, warmup: int, total: int) -> float:
    """Linear up, then half a cosine down."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return peak * (0.1 + 0.45 * (1 + math.cos(math.pi * progress)))


class TinyGPT(nn.Module):
    """One causal attention block with learned positions."""

    def __init__(self, vocab: int, width: int, context: int) -> None:
        super().__init__()
        self.token = nn.Embedding(vocab, width)
        self.place = nn.Embedding(context, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.project = nn.Linear(width, width, bias=False)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.head = nn.Linear(width, vocab, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits, [B, T, V]."""
        x = self.token(tokens) + self.place(torch.arange(tokens.shape[1]))
        q, k, v = self.qkv(self.norm1(x)).chunk(3, dim=-1)
        x = x + self.project(functional.scaled_dot_product_attention(q, k, v, is_causal=True))
        logits: Tensor = self.head(x + self.mlp(self.norm2(x)))
        return logits


def main() -> None:
    """Trains on sums modulo a number."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--peak-lr", type=float, default=1e-2)
    parser.add_argument("--start", choices=("zero", "first"), default="first", help="rate of the first step")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    model = TinyGPT(vocab=16, width=48, context=20)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.peak_lr, betas=(0.9, 0.95), weight_decay=0.1)
    warmup = max(2, args.steps // 10)
    log = (args.out / "metrics.jsonl").open("w")
    for step in range(args.steps):
        position = step - 1 if args.start == "zero" else step
        rate = get_lr(position, peak=args.peak_lr, warmup=warmup, total=args.steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        first, stride = torch.randint(16, (args.batch_size, 1)), torch.randint(1, 4, (args.batch_size, 1))
        tokens = (first + stride * torch.arange(21)) % 16
        loss = functional.cross_entropy(model(tokens[:, :-1]).transpose(1, 2), tokens[:, 1:])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        log.write(
            json.dumps({"step": step, "loss": loss.item(), "lr": rate, "grad_norm": norm.item()}) + "\n"
        )
    log.close()
    torch.save(model.state_dict(), args.out / "model.pt")


if __name__ == "__main__":
    main()
