"""How well the model predicts the held-out sequences."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name the field uses

from reference_model.data import IGNORED, SequenceDataset
from reference_model.precision import autocast

if TYPE_CHECKING:
    from reference_model.config import Precision
    from reference_model.distributed import World

_BATCH_SIZE = 100


@dataclass(frozen=True)
class Evaluation:
    """Mean over all held-out tokens of all ranks."""

    loss: float
    """Cross-entropy in nats per token."""
    accuracy: float
    """Share of tokens that were the most likely one."""

    @property
    def bits_per_token(self) -> float:
        """The loss in bits: per pixel for digits, per byte for text."""
        return self.loss / math.log(2)

    def as_metrics(self) -> dict[str, float]:
        """The columns of the metrics file."""
        return {
            "val/loss": self.loss,
            "val/bits_per_token": self.bits_per_token,
            "val/perplexity": math.exp(min(self.loss, 700.0)),
            "val/accuracy": self.accuracy,
        }


@torch.no_grad()
def evaluate(model: nn.Module, dataset: SequenceDataset, world: World, precision: Precision) -> Evaluation:
    """Evaluate in eval mode and return the model to the mode it was in; ranks share the sequences."""
    was_training = model.training
    model.eval()
    loss_sum = num_correct = num_targets = 0.0
    for start in range(world.rank, len(dataset), world.size * _BATCH_SIZE):
        indices = range(start, min(start + world.size * _BATCH_SIZE, len(dataset)), world.size)
        inputs_BT, targets_BT = (tensor.to(world.device) for tensor in dataset.__getitems__(list(indices)))
        with autocast(world.device, precision):
            logits_BTV = model(inputs_BT)
        logits_NV, targets_N = logits_BTV.float().flatten(0, 1), targets_BT.flatten()
        loss_sum += F.cross_entropy(logits_NV, targets_N, ignore_index=IGNORED, reduction="sum").item()
        num_correct += (logits_NV.argmax(-1) == targets_N).sum().item()
        num_targets += (targets_N != IGNORED).sum().item()
    model.train(was_training)
    loss_sum, num_correct, num_targets = (world.sum(value) for value in (loss_sum, num_correct, num_targets))
    return Evaluation(loss=loss_sum / num_targets, accuracy=num_correct / num_targets)
