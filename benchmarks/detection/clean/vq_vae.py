"""A VQ-VAE: gradients pass straight through the codes, which follow by averages kept in buffers, not by gradient."""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


class Codebook(nn.Module):
    """Codes that move to the mean of what chose them."""

    def __init__(self, num_codes: int, width: int, decay: float = 0.9) -> None:
        super().__init__()
        self.decay = decay
        self.codes: Tensor
        self.counts: Tensor
        self.sums: Tensor
        self.register_buffer("codes", torch.randn(num_codes, width))
        self.register_buffer("counts", torch.ones(num_codes))
        self.register_buffer("sums", self.codes.clone())

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest codes, and the distance that the encoder should close."""
        chosen = torch.cdist(vectors.detach(), self.codes).argmin(1)
        if self.training:
            self.follow(vectors.detach(), functional.one_hot(chosen, len(self.codes)).float())
        quantized = self.codes[chosen]
        commitment = functional.mse_loss(vectors, quantized)
        return vectors + (quantized - vectors).detach(), commitment

    @torch.no_grad()
    def follow(self, vectors: Tensor, choices: Tensor) -> None:
        """Updates the averages."""
        self.counts.mul_(self.decay).add_(choices.sum(0), alpha=1 - self.decay)
        self.sums.mul_(self.decay).add_(choices.T @ vectors, alpha=1 - self.decay)
        self.codes.copy_(self.sums / self.counts.clamp_min(1e-3)[:, None])


class VQVAE(nn.Module):
    """Encoder, codebook, decoder."""

    def __init__(self, num_codes: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 8))
        self.codebook = Codebook(num_codes, 8)
        self.decoder = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 32))

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """What was rebuilt, and the commitment loss."""
        quantized, commitment = self.codebook(self.encoder(inputs))
        return self.decoder(quantized), commitment


def main() -> None:
    """Trains on clustered vectors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--codes", type=int, default=32)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    centers = torch.randn(10, 32)
    model = VQVAE(args.codes)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(args.steps):
        inputs = centers[torch.randint(10, (64,))] + 0.1 * torch.randn(64, 32)
        rebuilt, commitment = model(inputs)
        loss = functional.mse_loss(rebuilt, inputs) + 0.25 * commitment
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0:
            print(step, loss.item())
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out / "vq_vae.pt")


if __name__ == "__main__":
    main()
