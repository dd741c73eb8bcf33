"""Wasserstein GAN with gradient penalty: several critic steps for each step of the generator, losses of any sign."""

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor, nn


def ring(size: int) -> Tensor:
    """Points of eight blobs on a circle."""
    angle = torch.randint(8, (size,)) * (2 * math.pi / 8)
    return torch.stack([angle.cos(), angle.sin()], 1) + 0.05 * torch.randn(size, 2)


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """Mean squared distance of the gradient norm between real and fake from one."""
    mix = torch.rand(len(real), 1)
    between = (mix * real + (1 - mix) * fake).requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    penalty: Tensor = ((gradient.norm(dim=1) - 1) ** 2).mean()
    return penalty


def main() -> None:
    """Trains generator and critic."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--critic-steps", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=64)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    generator = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    critic = nn.Sequential(
        nn.Linear(2, 64), nn.LeakyReLU(0.2), nn.Linear(64, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1)
    )
    optimizer_g = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.0, 0.9))
    optimizer_c = torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.0, 0.9))

    for step in range(args.steps):
        for _ in range(args.critic_steps):
            real = ring(args.batch_size)
            with torch.no_grad():
                fake = generator(torch.randn(args.batch_size, 8))
            loss_c = critic(fake).mean() - critic(real).mean() + 10 * gradient_penalty(critic, real, fake)
            optimizer_c.zero_grad()
            loss_c.backward()
            optimizer_c.step()
        loss_g = -critic(generator(torch.randn(args.batch_size, 8))).mean()
        optimizer_g.zero_grad()
        loss_g.backward()
        optimizer_g.step()
        if step % 5 == 0:
            print(f"{step} critic {loss_c.item():.3f} generator {loss_g.item():.3f}")

    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(
        {
            "step": args.steps,
            "generator": generator.state_dict(),
            "critic": critic.state_dict(),
            "optimizer_g": optimizer_g.state_dict(),
            "optimizer_c": optimizer_c.state_dict(),
            "rng": torch.get_rng_state(),
        },
        args.out / "checkpoint.pt",
    )


if __name__ == "__main__":
    main()
