"""A variational autoencoder: reconstruction plus KL divergence, summed over pixels, with KL warm-up."""

import argparse
import csv
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset


class VAE(nn.Module):
    """Encoder, sampling and decoder."""

    def __init__(self, pixels: int, latent: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(pixels, 64), nn.ReLU())
        self.mean = nn.Linear(64, latent)
        self.log_variance = nn.Linear(64, latent)
        self.decoder = nn.Sequential(nn.Linear(latent, 64), nn.ReLU(), nn.Linear(64, pixels))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the pixels, and the posterior."""
        hidden = self.encoder(images)
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)
        sample = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        return self.decoder(sample), mean, log_variance


def main() -> None:
    """Trains on binary bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--beta", type=float, default=1.0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    rows = (torch.rand(640, 8, 1) < 0.3).expand(640, 8, 8)  # noqa: PLR2004 - the share of bars
    images = rows.float().flatten(1)
    loader = DataLoader(TensorDataset(images), batch_size=args.batch_size, shuffle=True)
    model = VAE(64, 8)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    history = []
    epochs = max(1, args.steps // len(loader))
    for epoch in range(epochs):
        weight = args.beta * min(1.0, (epoch + 1) / 2)
        sums = torch.zeros(2)
        for (batch,) in loader:
            logits, mean, log_variance = model(batch)
            reconstruction = functional.binary_cross_entropy_with_logits(logits, batch, reduction="sum")
            divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum()
            loss = (reconstruction + weight * divergence) / len(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            sums += torch.stack([reconstruction.detach(), divergence.detach()])
        history.append((epoch, *(sums / len(images)).tolist()))
        print(history[-1])
    args.out.mkdir(parents=True, exist_ok=True)
    with (args.out / "metrics.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("epoch", "reconstruction", "kl"), *history])
    torch.save(model.state_dict(), args.out / "vae.pt")


if __name__ == "__main__":
    main()
