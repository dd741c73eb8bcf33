"""SimSiam: a negative cosine as the loss, and one side of it detached on purpose."""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn


class SimSiam(nn.Module):
    """An encoder and a predictor."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(20, width),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.BatchNorm1d(width),
        )
        self.predictor = nn.Sequential(nn.Linear(width, width // 2), nn.ReLU(), nn.Linear(width // 2, width))
        self.similarity = nn.CosineSimilarity(dim=1)

    def forward(self, one: Tensor, two: Tensor) -> Tensor:
        """The loss, between -1 and 1."""
        z1, z2 = self.encoder(one), self.encoder(two)
        p1, p2 = self.predictor(z1), self.predictor(z2)
        loss: Tensor = (
            -(self.similarity(p1, z2.detach()).mean() + self.similarity(p2, z1.detach()).mean()) / 2
        )
        return loss


def main() -> None:
    """Trains on pairs of views."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=64)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    centers = 2 * torch.randn(10, 20)
    model = SimSiam(32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    for step in range(args.steps):
        points = centers[torch.randint(10, (args.batch_size,))] + 0.5 * torch.randn(args.batch_size, 20)
        loss = model(points + 0.5 * torch.randn_like(points), points + 0.5 * torch.randn_like(points))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0:
            print(step, loss.item())
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.encoder.state_dict(), args.out / "encoder.pt")


if __name__ == "__main__":
    main()
