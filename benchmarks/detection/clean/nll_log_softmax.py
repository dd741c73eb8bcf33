"""NLLLoss on the log-softmax that the model ends with: log-probabilities are right for it."""

import argparse
from pathlib import Path

import torch
import torch.utils.data
from torch import Tensor, nn
from torch.nn import functional


class Net(nn.Module):
    """The net of many a first example: convolution, dropout, log-softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3)
        self.conv2 = nn.Conv2d(8, 16, 3)
        self.dropout = nn.Dropout(0.25)
        self.fc1 = nn.Linear(16 * 9, 32)
        self.fc2 = nn.Linear(32, 6)

    def forward(self, x: Tensor) -> Tensor:
        """Log-probabilities of six classes."""
        x = functional.relu(self.conv1(x))
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        x = functional.relu(self.fc1(torch.flatten(self.dropout(x), 1)))
        return functional.log_softmax(self.fc2(x), dim=1)


def test(model: nn.Module, loader: torch.utils.data.DataLoader[tuple[Tensor, ...]], size: int) -> float:
    """Mean loss on the test set."""
    model.eval()
    total = 0.0
    with torch.no_grad():
        for images, labels in loader:
            total += functional.nll_loss(model(images), labels, reduction="sum").item()
    return total / size


def main() -> None:
    """Trains and tests, epoch by epoch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1.0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    prototypes = torch.randn(6, 1, 10, 10)
    labels = torch.randint(6, (800,))
    images = prototypes[labels] + 1.2 * torch.randn(800, 1, 10, 10)
    train_set = torch.utils.data.TensorDataset(images[:640], labels[:640])
    test_set = torch.utils.data.TensorDataset(images[640:], labels[640:])
    train_loader = torch.utils.data.DataLoader(train_set, args.batch_size, shuffle=True)
    test_loader = torch.utils.data.DataLoader(test_set, 160)
    model = Net()
    optimizer = torch.optim.Adadelta(model.parameters(), lr=args.lr)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.7)
    for epoch in range(max(1, args.steps // len(train_loader))):
        model.train()
        for data, target in train_loader:
            optimizer.zero_grad()
            loss = functional.nll_loss(model(data), target)
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch} train {loss.item():.4f} test {test(model, test_loader, 160):.4f}")
        scheduler.step()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out / "cnn.pt")


if __name__ == "__main__":
    main()
