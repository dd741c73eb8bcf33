"""Monte Carlo dropout: the model is in eval mode for the evaluation, its dropout layers alone are not, on purpose."""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


@torch.no_grad()
def predict(model: nn.Module, inputs: Tensor, num_samples: int) -> tuple[Tensor, Tensor]:
    """Mean and spread over several passes with dropout on."""
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.train()
    samples = torch.stack([model(inputs) for _ in range(num_samples)])
    model.train()
    return samples.mean(0), samples.std(0)


def main() -> None:
    """Fits a curve with gaps, and looks at the spread now and then."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--dropout", type=float, default=0.1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    x = torch.cat([torch.rand(200, 1) - 1.5, torch.rand(200, 1) + 0.5])
    y = torch.sin(2 * x) + 0.5 * x + 0.05 * torch.randn(400, 1)
    model = nn.Sequential(
        nn.Linear(1, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(args.dropout), nn.Linear(64, 64), nn.ReLU(),
        nn.Dropout(args.dropout), nn.Linear(64, 1),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3, weight_decay=1e-5)
    for step in range(1, args.steps + 1):
        picked = torch.randint(400, (64,))
        loss = functional.mse_loss(model(x[picked]), y[picked])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 25 == 0:
            _, spread = predict(model, torch.zeros(1, 1), 10)
            print(f"{step} loss {loss.item():.4f} spread in the gap {spread.item():.4f}")
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out / "model.pt")


if __name__ == "__main__":
    main()
