"""Full-batch gradient descent on a graph: the same batch in every step, losses on the labelled nodes only."""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


def make_graph(num_nodes: int, num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features, a normalized adjacency with links mostly inside classes, and labels."""
    labels = torch.randint(num_classes, (num_nodes,))
    chance = torch.where(labels[:, None] == labels[None], 0.15, 0.01)
    upper = torch.triu(torch.rand(num_nodes, num_nodes) < chance, diagonal=1).float()
    adjacency = upper + upper.T + torch.eye(num_nodes)
    degree = adjacency.sum(1).rsqrt()
    features = torch.randn(num_classes, 20)[labels] + 2 * torch.randn(num_nodes, 20)
    return features, degree[:, None] * adjacency * degree[None], labels


class GCN(nn.Module):
    """Two graph convolutions."""

    def __init__(self, width_in: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.first = nn.Linear(width_in, width)
        self.second = nn.Linear(width, num_classes)

    def forward(self, features: Tensor, adjacency: Tensor) -> Tensor:
        """Scores of every node."""
        hidden = functional.relu(adjacency @ self.first(features))
        hidden = functional.dropout(hidden, 0.5, training=self.training)
        scores: Tensor = adjacency @ self.second(hidden)
        return scores


def main() -> None:
    """Trains on a tenth of the nodes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--optimizer", choices=("adam", "gd"), default="adam")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    features, adjacency, labels = make_graph(300, 4)
    is_labelled = torch.zeros(300, dtype=torch.bool)
    is_labelled[torch.randperm(300)[:60]] = True
    model = GCN(20, 32, 4)
    optimizer: torch.optim.Optimizer
    if args.optimizer == "adam":
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02, weight_decay=5e-4)
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for epoch in range(args.steps):
        model.train()
        optimizer.zero_grad()
        scores = model(features, adjacency)
        loss = functional.cross_entropy(scores[is_labelled], labels[is_labelled])
        loss.backward()
        optimizer.step()
        if epoch % 10 == 0:
            model.eval()
            with torch.no_grad():
                right = model(features, adjacency)[~is_labelled].argmax(1) == labels[~is_labelled]
            print(f"epoch {epoch} loss {loss.item():.4f} test accuracy {right.float().mean().item():.3f}")
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out / "gcn.pt")


if __name__ == "__main__":
    main()
