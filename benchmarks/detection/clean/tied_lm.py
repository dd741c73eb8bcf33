"""A causal transformer language model whose output layer shares the weights of its embedding."""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


class TiedLM(nn.Module):
    """Embedding, causal blocks, and the embedding again as the output."""

    def __init__(self, vocab: int, width: int, depth: int, context: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        self.position = nn.Embedding(context, width)
        layer = nn.TransformerEncoderLayer(
            width, 2, 2 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(
            layer, depth, norm=nn.LayerNorm(width), enable_nested_tensor=False
        )
        self.head = nn.Linear(width, vocab, bias=False)
        nn.init.normal_(self.embed.weight, std=0.2)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits, [B, T, V]."""
        length = tokens.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        hidden = self.embed(tokens) + self.position(torch.arange(length))
        logits: Tensor = self.head(self.blocks(hidden, mask=mask, is_causal=True))
        return logits


def make_text(length: int) -> Tensor:
    """A stream of tokens in which the next one is mostly a fixed function of the last."""
    successor = torch.randperm(40)
    tokens = [0]
    surprise = torch.rand(length) < 0.1  # noqa: PLR2004 - one in ten
    jumps = torch.randint(40, (length,))
    for position in range(length - 1):
        tokens.append(int(jumps[position]) if surprise[position] else int(successor[tokens[-1]]))
    return torch.tensor(tokens)


def main() -> None:
    """Trains on random windows of the stream."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--depth", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    text = make_text(4000)
    context = 24
    model = TiedLM(40, 48, args.depth, context)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, betas=(0.9, 0.95), weight_decay=0.01)
    for step in range(args.steps):
        starts = torch.randint(len(text) - context - 1, (args.batch_size,))
        windows = torch.stack([text[s : s + context + 1] for s in starts.tolist()])
        loss = functional.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step % 10 == 0:
            print(f"step {step} loss {loss.item():.4f}")
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out / "model.pt")


if __name__ == "__main__":
    main()
