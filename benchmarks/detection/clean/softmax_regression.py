"""Softmax regression by hand: two plain tensors instead of a module, and SGD without momentum."""

import argparse
from pathlib import Path

import torch
from torch import Tensor


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean negative log-likelihood."""
    log_probs = logits - logits.logsumexp(dim=1, keepdim=True)
    return -log_probs[torch.arange(len(labels)), labels].mean()


def main() -> None:
    """Trains a linear classifier."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(args.seed)
    labels = torch.randint(7, (1000,), generator=generator)
    inputs = torch.randn(7, 14, generator=generator)[labels] + torch.randn(1000, 14, generator=generator)

    weight = torch.zeros(14, 7, requires_grad=True)
    bias = torch.zeros(7, requires_grad=True)
    optimizer = torch.optim.SGD([weight, bias], lr=args.lr)
    for step in range(args.steps):
        picked = torch.randint(1000, (args.batch_size,), generator=generator)
        loss = cross_entropy(inputs[picked] @ weight + bias, labels[picked])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0:
            print(step, loss.item())
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save({"weight": weight.detach(), "bias": bias.detach()}, args.out / "softmax.pt")


if __name__ == "__main__":
    main()
