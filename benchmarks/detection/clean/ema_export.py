"""Evaluates and exports the averaged weights only, as is usual for generators: they are not the live ones."""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


class EMA:
    """A moving average of weights that can stand in for them for a while."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.shadow = {name: p.detach().clone() for name, p in model.named_parameters()}
        self.backup: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Follows the model."""
        for name, parameter in model.named_parameters():
            self.shadow[name].mul_(self.decay).add_(parameter, alpha=1 - self.decay)

    @torch.no_grad()
    def swap_in(self, model: nn.Module) -> None:
        """Puts the averages into the model."""
        for name, parameter in model.named_parameters():
            self.backup[name] = parameter.detach().clone()
            parameter.copy_(self.shadow[name])

    @torch.no_grad()
    def swap_out(self, model: nn.Module) -> None:
        """Puts the live weights back."""
        for name, parameter in model.named_parameters():
            parameter.copy_(self.backup[name])
        self.backup.clear()


def main() -> None:
    """Trains a regressor."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--decay", type=float, default=0.95)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    x = torch.randn(600, 6)
    y = torch.relu(x @ torch.randn(6, 2)) + 0.1 * torch.randn(600, 2)
    model = nn.Sequential(nn.Linear(6, 48), nn.ReLU(), nn.Linear(48, 2))
    ema = EMA(model, args.decay)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for step in range(1, args.steps + 1):
        picked = torch.randint(500, (32,))
        loss = functional.mse_loss(model(x[picked]), y[picked])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ema.update(model)
        if step % 20 == 0:
            ema.swap_in(model)
            model.eval()
            with torch.no_grad():
                held_out = functional.mse_loss(model(x[500:]), y[500:]).item()
            model.train()
            ema.swap_out(model)
            print(f"{step} train {loss.item():.4f} held out (ema) {held_out:.4f}")
    torch.save(ema.shadow, args.out / "ema_weights.pt")


if __name__ == "__main__":
    main()
