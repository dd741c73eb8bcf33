"""Word vectors by skip-gram with negative samples and Adagrad: rows of words that are not drawn stay as they are."""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


class SkipGram(nn.Module):
    """Vectors of words as centers and as contexts."""

    def __init__(self, vocab: int, width: int) -> None:
        super().__init__()
        self.center = nn.Embedding(vocab, width)
        self.context = nn.Embedding(vocab, width)
        nn.init.uniform_(self.center.weight, -0.5 / width, 0.5 / width)
        nn.init.zeros_(self.context.weight)

    def forward(self, centers: Tensor, contexts: Tensor, negatives: Tensor) -> Tensor:
        """The loss of a batch of pairs."""
        vectors = self.center(centers)
        near = (vectors * self.context(contexts)).sum(-1)
        far = torch.einsum("bd,bnd->bn", vectors, self.context(negatives))
        return -(functional.logsigmoid(near) + functional.logsigmoid(-far).sum(1)).mean()


def main() -> None:
    """Trains on words that keep to their topic."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--lr", type=float, default=0.3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    vocab, topics = 120, 6
    model = SkipGram(vocab, 16)
    optimizer = torch.optim.Adagrad(model.parameters(), lr=args.lr)
    for step in range(args.steps):
        topic = torch.randint(topics, (args.batch_size,))
        centers = topic + topics * torch.randint(vocab // topics, (args.batch_size,))
        contexts = topic + topics * torch.randint(vocab // topics, (args.batch_size,))
        negatives = torch.randint(vocab, (args.batch_size, 4))
        loss = model(centers, contexts, negatives)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0:
            print(step, loss.item())
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.center.weight.detach().clone(), args.out / "vectors.pt")


if __name__ == "__main__":
    main()
