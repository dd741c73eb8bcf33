# mypy: ignore-errors
"""Trains a small causal transformer on sentences of an artificial language."""

from __future__ import annotations

import argparse
import copy
import csv
import math
import random
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

VOCABULARY = 40
PAD = 0
IGNORED = -100


class Sentences(Dataset):
    """Sentences in which a word mostly follows from the one before it and from the sentence's topic."""

    def __init__(self, num_sentences, seed):
        generator = random.Random(seed)
        self.sentences = [self.write(generator) for _ in range(num_sentences)]

    def write(self, generator):
        topic = generator.randrange(1, 4)
        words = [topic, generator.randrange(4, VOCABULARY)]
        for _ in range(generator.randrange(10, 28)):
            following = 4 + (words[-1] * (2 * topic + 1) + topic) % (VOCABULARY - 4)
            words.append(following if generator.random() < 0.9 else generator.randrange(4, VOCABULARY))
        return words

    def __len__(self):
        return len(self.sentences)

    def __getitem__(self, index):
        return torch.tensor(self.sentences[index])


def collate(sentences):
    """Inputs and targets, shifted by one and padded to the longest sentence."""
    length = max(len(sentence) for sentence in sentences) - 1
    inputs = torch.full((len(sentences), length), PAD)
    targets = torch.full((len(sentences), length), IGNORED)
    for row, sentence in enumerate(sentences):
        inputs[row, : len(sentence) - 1] = sentence[:-1]
        targets[row, : len(sentence) - 1] = sentence[1:]
    return inputs, targets


class Block(nn.Module):
    def __init__(self, width, num_heads, dropout):
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def attend(self, x):
        batch, length, width = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = qkv
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))

    def forward(self, x):
        x = x + self.dropout(self.attend(self.norm1(x)))
        return x + self.dropout(self.mlp(self.norm2(x)))


class LanguageModel(nn.Module):
    def __init__(self, width=48, num_blocks=2, num_heads=4, max_length=32, dropout=0.1):
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, width)
        self.positions = nn.Embedding(max_length, width)
        self.blocks = nn.ModuleList([Block(width, num_heads, dropout) for _ in range(num_blocks)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, VOCABULARY, bias=False)
        self.apply(self.initialise)

    def initialise(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.05)
            if getattr(module, "bias", None) is not None:
                nn.init.zeros_(module.bias)

    def forward(self, inputs):
        x = self.tokens(inputs) + self.positions(torch.arange(inputs.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def build_optimizer(model, lr, weight_decay):
    """AdamW; biases and norms are not decayed."""
    decayed = [p for p in model.parameters() if p.requires_grad and p.dim() >= 2]
    others = [p for p in model.parameters() if p.requires_grad and p.dim() < 2]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98))


def build_schedule(optimizer, warmup, steps):
    """Linear warm-up, then a cosine down to a tenth."""

    def scale(step):
        if step < warmup:
            return (step + 1) / warmup
        progress = (step - warmup) / max(1, steps - warmup)
        return 0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, progress)))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, scale)


def compute_loss(logits, targets):
    """Sum of the losses of all words that are not padding."""
    return functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"
    )


@torch.no_grad()
def evaluate(model, loader):
    """Mean loss per word on held-out sentences."""
    model.eval()
    total, count = 0.0, 0
    for inputs, targets in loader:
        total += compute_loss(model(inputs), targets).item()
        count += int((targets != IGNORED).sum())
    model.train()
    return total / max(count, 1)


@torch.no_grad()
def update_ema(ema, model, decay):
    for average, parameter in zip(ema.parameters(), model.parameters()):
        average.lerp_(parameter, 1 - decay)


def save(path, model, ema, optimizer, schedule, step):
    torch.save(
        {
            "model": model.state_dict(),
            "ema": ema.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scheduler": schedule.state_dict(),
            "step": step,
            "rng": torch.get_rng_state(),
        },
        path,
    )


def endless(loader):
    while True:
        yield from loader


def train(args):
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    train_set = Sentences(512, seed=1000 + args.seed)
    val_set = Sentences(64, seed=5000 + args.seed)
    train_loader = DataLoader(train_set, batch_size=args.batch_size, shuffle=True, collate_fn=collate)
    val_loader = DataLoader(val_set, batch_size=32, collate_fn=collate)

    model = LanguageModel()
    ema = copy.deepcopy(model).requires_grad_(False).eval()
    optimizer = build_optimizer(model, args.lr, args.weight_decay)
    schedule = build_schedule(optimizer, args.warmup, args.steps)

    batches = endless(train_loader)
    with (args.out / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "loss", "lr", "grad_norm", "tokens", "val_loss", "ema_val_loss"])
        for step in range(1, args.steps + 1):
            micro_batches = [next(batches) for _ in range(args.accumulate)]
            num_tokens = sum(int((targets != IGNORED).sum()) for _, targets in micro_batches)
            optimizer.zero_grad()
            step_loss = 0.0
            for inputs, targets in micro_batches:
                logits = model(inputs)
                loss = compute_loss(logits, targets) / num_tokens
                loss.backward()
                step_loss += loss.item()
            grad_norm = nn.utils.clip_grad_norm_(model.parameters(), args.clip)
            optimizer.step()
            lr = schedule.get_last_lr()[0]
            schedule.step()
            update_ema(ema, model, args.ema_decay)
            row = [step, step_loss, lr, float(grad_norm), num_tokens]
            if step % args.eval_every == 0 or step == args.steps:
                row += [evaluate(model, val_loader), evaluate(ema, val_loader)]
                save(args.out / "checkpoint.pt", model, ema, optimizer, schedule, step)
            writer.writerow(row + [""] * (7 - len(row)))
            file.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("run"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--accumulate", type=int, default=2)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--warmup", type=int, default=8)
    parser.add_argument("--clip", type=float, default=1.0)
    parser.add_argument("--ema-decay", type=float, default=0.9)
    parser.add_argument("--eval-every", type=int, default=15)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
