"""Fine-tunes a new head on a convolutional backbone that is frozen on purpose with requires_grad=False."""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


def make_images(num_images: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Noisy stripes in four directions, and the direction."""
    y, x = torch.meshgrid(torch.arange(12.0), torch.arange(12.0), indexing="ij")
    waves = torch.stack([torch.sin(x), torch.sin(y), torch.sin(x + y), torch.sin(x - y)])
    labels = torch.randint(4, (num_images,), generator=generator)
    noise = 0.5 * torch.randn(num_images, 12, 12, generator=generator)
    return (waves[labels] + noise).unsqueeze(1), labels


def build_backbone() -> nn.Sequential:
    """Stands in for a downloaded backbone: always the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(1234)
        return nn.Sequential(
            nn.Conv2d(1, 16, 5),
            nn.ReLU(),
            nn.Conv2d(16, 24, 3),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
        )


def main() -> None:
    """Trains the head and saves it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=32)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)

    images, labels = make_images(32 * 20, torch.Generator().manual_seed(args.seed))
    loader = DataLoader(TensorDataset(images, labels), batch_size=args.batch_size, shuffle=True)
    model = nn.Sequential(build_backbone(), nn.Linear(96, 4))
    for parameter in model[0].parameters():
        parameter.requires_grad = False
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(filter(lambda p: p.requires_grad, model.parameters()), lr=2e-2)

    step = 0
    while step < args.steps:
        for batch, target in loader:
            optimizer.zero_grad()
            loss = criterion(model(batch), target)
            loss.backward()
            optimizer.step()
            step += 1
            if step % 10 == 0:
                print(f"step {step}: loss {loss.item():.4f}")
            if step == args.steps:
                break
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out / "model.pt")


if __name__ == "__main__":
    main()
