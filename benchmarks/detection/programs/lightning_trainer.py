# mypy: ignore-errors
"""Trains a classifier of noisy waves with Lightning."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

LENGTH = 32
NUM_CLASSES = 4


def draw_waves(num_waves, seed):
    """Waves of four frequencies with random phase and noise, and their classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(NUM_CLASSES, (num_waves,), generator=generator)
    phases = 2 * math.pi * torch.rand(num_waves, 1, generator=generator)
    times = torch.linspace(0, 2 * math.pi, LENGTH)
    waves = torch.sin((labels[:, None] + 1) * times + phases)
    return TensorDataset(waves + 0.3 * torch.randn(num_waves, LENGTH, generator=generator), labels)


class WaveClassifier(lightning.LightningModule):
    def __init__(self, lr, steps, width=16):
        super().__init__()
        self.save_hyperparameters()
        self.encoder = nn.Sequential(
            nn.Conv1d(1, width, 7, padding=3),
            nn.GroupNorm(4, width),
            nn.ReLU(),
            nn.Conv1d(width, width, 7, stride=2, padding=3),
            nn.GroupNorm(4, width),
            nn.ReLU(),
            nn.Dropout(0.1),
        )
        self.head = nn.Linear(width * LENGTH // 2, NUM_CLASSES)

    def forward(self, waves):
        return self.head(self.encoder(waves.unsqueeze(1)).flatten(1))

    def training_step(self, batch, batch_idx):
        waves, labels = batch
        loss = functional.cross_entropy(self(waves), labels)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        waves, labels = batch
        logits = self(waves)
        self.log("val_loss", functional.cross_entropy(logits, labels))
        self.log("val_accuracy", (logits.argmax(1) == labels).float().mean())

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.hparams.lr, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=self.hparams.lr, total_steps=self.hparams.steps
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def train(args):
    lightning.seed_everything(args.seed, verbose=False)
    train_loader = DataLoader(
        draw_waves(480, seed=1000 + args.seed), batch_size=args.batch_size, shuffle=True, drop_last=True
    )
    val_loader = DataLoader(draw_waves(128, seed=5000 + args.seed), batch_size=64)
    model = WaveClassifier(lr=args.lr, steps=args.steps)
    trainer = lightning.Trainer(
        max_steps=args.steps,
        accelerator="cpu",
        devices=1,
        logger=CSVLogger(args.out, name="", version="", flush_logs_every_n_steps=1),
        callbacks=[ModelCheckpoint(args.out / "checkpoints", save_last=True)],
        gradient_clip_val=1.0,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        deterministic=True,
    )
    trainer.fit(model, train_loader, val_loader)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("run"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-2)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
