"""The optimizer, its schedule and the moving average of the weights."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from reference_model.schedule import lr_factor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reference_model.config import OptimConfig


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW that decays the matrices of linear maps and nothing else."""
    decayed = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if id(p) in decayed], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if id(p) not in decayed], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2))


def build_scheduler(optimizer: torch.optim.Optimizer, config: OptimConfig, num_steps: int) -> LambdaLR:
    """Warm-up and cosine over `num_steps` optimizer steps."""
    factor = partial(
        lr_factor,
        num_steps=num_steps,
        warmup_fraction=config.warmup_fraction,
        min_ratio=config.min_lr_ratio,
    )
    return LambdaLR(optimizer, factor)


class AveragedWeights:
    """Exponential moving average of a model's weights.

    The decay grows from 0.1 towards its final value, so that the average of a short run is not its start.
    A decay of 0 makes the average equal the weights.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self.weights = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the model's weights."""
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        self.num_updates += 1
        for name, parameter in model.named_parameters():
            self.weights[name].lerp_(parameter, 1.0 - decay)

    @contextmanager
    def swapped_in(self, model: nn.Module) -> Iterator[None]:
        """Let the model hold the averaged weights for the length of a block."""
        own = {name: p.detach().clone() for name, p in model.named_parameters()}
        self._load(model, self.weights)
        try:
            yield
        finally:
            self._load(model, own)

    def state_dict(self) -> dict[str, Any]:
        """The average and how often it was updated."""
        return {"num_updates": self.num_updates, "weights": dict(self.weights)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`'s result."""
        self.num_updates = state["num_updates"]
        for name, weight in state["weights"].items():
            self.weights[name].copy_(weight)

    @staticmethod
    @torch.no_grad()
    def _load(model: nn.Module, weights: dict[str, Tensor]) -> None:
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])
