"""Everything a run carries from step to step, gathered for checkpoints and put back from them."""

from __future__ import annotations

import logging
import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from reference_model.logs import log_event
from reference_model.rng import capture_rng, restore_rng

if TYPE_CHECKING:
    import torch
    from torch.optim.lr_scheduler import LambdaLR

    from reference_model.distributed import World
    from reference_model.model import Transformer
    from reference_model.optim import AveragedWeights
    from reference_model.sampler import MicroBatchSampler


@dataclass
class Progress:
    """The counters of the loop."""

    step: int = 0
    """Optimizer steps taken, skipped ones included."""
    smoothed_loss: float | None = None
    """Exponential average of the training loss, decay 0.9."""
    best_val_loss: float | None = None
    """Lowest validation loss so far."""
    evals_without_gain: int = 0
    """Evaluations since the lowest one."""
    nonfinite_steps: int = 0
    """Steps skipped in all."""
    nonfinite_in_a_row: int = 0
    """Steps skipped since the last one that was taken."""

    def count_train_loss(self, loss: float) -> None:
        """Fold one finite loss into the smoothed one."""
        self.smoothed_loss = loss if self.smoothed_loss is None else 0.9 * self.smoothed_loss + 0.1 * loss

    def count_val_loss(self, loss: float) -> None:
        """Note one validation loss; one that is not finite is no gain."""
        is_better = self.best_val_loss is None or loss < self.best_val_loss
        if math.isfinite(loss) and is_better:
            self.best_val_loss, self.evals_without_gain = loss, 0
        else:
            self.evals_without_gain += 1


@dataclass
class TrainState:
    """The parts of a training whose state a checkpoint holds."""

    model: Transformer
    optimizer: torch.optim.Optimizer
    scheduler: LambdaLR
    scaler: torch.amp.GradScaler
    averaged: AveragedWeights
    sampler: MicroBatchSampler
    progress: Progress = field(default_factory=Progress)

    def capture(self, world: World) -> dict[str, Any]:
        """State of every part and of every rank's random generators; all ranks must call it."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": self.averaged.state_dict(),
            "data_position": dict(self.sampler.position),
            "progress": asdict(self.progress),
            "step": self.progress.step,
            "epoch": self.sampler.position["epoch"],
            "best_val_loss": self.progress.best_val_loss,
            "rng": world.gather(capture_rng()),
        }

    def restore(self, payload: dict[str, Any], world: World) -> None:
        """Continue from `capture`'s result.

        A rank that the saved run did not have keeps the random state it was seeded with.
        """
        self.model.load_state_dict(payload["model"])
        self.optimizer.load_state_dict(payload["optimizer"])
        self.scheduler.load_state_dict(payload["scheduler"])
        self.scaler.load_state_dict(payload["scaler"])
        self.averaged.load_state_dict(payload["ema"])
        self.sampler.position = dict(payload["data_position"])
        self.progress = Progress(**payload["progress"])
        if world.rank < len(payload["rng"]):
            restore_rng(payload["rng"][world.rank])
        if world.size != len(payload["rng"]):
            log_event("ranks_changed", logging.WARNING, before=len(payload["rng"]), now=world.size)
