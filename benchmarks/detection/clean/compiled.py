"""A model under torch.compile, trained in a plain loop."""

import argparse
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional


def main() -> None:
    """Trains the compiled model and saves the weights of the plain one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--backend", choices=("inductor", "aot_eager", "eager"), default="aot_eager")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    centers = torch.randn(6, 16)
    model = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.LayerNorm(64), nn.Linear(64, 6))
    compiled = torch.compile(model, backend=args.backend)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(args.steps):
        labels = torch.randint(6, (64,))
        inputs = centers[labels] + 0.8 * torch.randn(64, 16)
        loss = functional.cross_entropy(compiled(inputs), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step % 20 == 0:
            print(step, loss.item())
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out / "model.pt")


if __name__ == "__main__":
    main()
